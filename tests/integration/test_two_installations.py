"""Two installations on one Redis, as processes: by themselves with their own namespaces, refused without."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.config import Config
from service.errors import RunError
from service.models.snapshot import ModelSnapshot
from service.preflight import require_redis
from telemetry.catalogue.archive_identity import known_identity
from telemetry.errors import ForeignRedisError
from telemetry.stream.redis_check import RedisRole
from tests.integration.lone_replica import Site, Visitors, counts

Await = Callable[..., Awaitable[None]]
Publish = Callable[[Path, ModelSnapshot], str]
Make = Callable[..., ModelSnapshot]


@pytest.fixture
def make_site(
    tmp_path: Path,
    redis_server: Any,
    free_port: Callable[[], int],
    make_snapshot: Make,
    publish_snapshot: Publish,
) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(name: str, **environ: str) -> Site:
        site = Site(tmp_path / name, redis_server.url, free_port)
        site.environ |= environ
        publish_snapshot(site.home / "models", make_snapshot())
        made.append(site)
        return site

    yield make
    for site in made:
        site.end()


def logged(site: Site) -> str:
    return "".join(path.read_text() for path in site.logs.iterdir())


def recollect(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "ops", *arguments]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60)


async def test_with_their_own_namespaces_nothing_mixes(
    make_site: Callable[..., Site], redis_server: Any, await_until: Await
) -> None:
    """Both take events at once; each archive has its own alone, both audits are clean, and no log has the password."""
    with redis_server.client() as client:
        client.config_set("requirepass", "open sesame")
    address = f"redis://:open%20sesame@127.0.0.1:{redis_server.port}/0"
    sites = [
        make_site(name, RECOLLECT_REDIS_NAMESPACE=name, RECOLLECT_REDIS_URL=address, RECOLLECT_LOG_LEVEL="debug")
        for name in ("one", "two")
    ]
    for site in sites:
        site.start_consumer()
        site.start_replica()
    await await_until(lambda: all(site.ready() for site in sites), 20, "both to be ready")
    async with Visitors(sites[0].port, "one") as one, Visitors(sites[1].port, "two") as two:
        await await_until(lambda: min(len(one.accepted), len(two.accepted)) >= 20, 20, "events of both")
    for site, visitors in zip(sites, (one, two), strict=True):
        await await_until(lambda site=site, visitors=visitors: site.has_archived(visitors.accepted), 20, "the archive")
        assert set(counts(site.archived())) == visitors.accepted | visitors.lists
        done = recollect(site.environ, "audit", "--json")
        report = json.loads(done.stdout)
        assert (done.returncode, report["missing"], report["duplicated"]) == (0, 0, 0), report
        assert not any("sesame" in word for word in psutil.Process(site.replica_pid).cmdline())
        redis_server.pause()
        await await_until(lambda site=site: "Disconnected" in logged(site), 20, "an outage in the log")
        redis_server.resume()
        assert site.stop() == [0, 0]
        assert "sesame" not in logged(site)


def test_of_two_that_start_at_once_one_is_refused(redis_server: Any, tmp_path: Path) -> None:
    """The first mark has the place; a Redis that cannot be written to keeps no command from starting."""
    configs = [Config(home=tmp_path / name, redis_url=redis_server.url) for name in ("one", "two")]

    def start(config: Config) -> str:
        try:
            require_redis(config, *RedisRole)
        except ForeignRedisError:
            return "refused"
        return "started"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(start, configs)) == ["refused", "started"]
    with redis_server.client() as client:
        client.config_set("maxmemory", 1)
        assert sorted(map(start, configs)) == ["refused", "started"]
        client.delete("recollect:owner")
        assert [start(config) for config in configs] == ["started", "started"]
        client.config_set("maxmemory", 0)


def test_a_copy_of_an_installation_is_refused_until_it_is_told_what_it_is(redis_server: Any, tmp_path: Path) -> None:
    """It gets an identity of its own then: by itself in another namespace, in the original's place in the same one."""
    one, two = (Config(home=tmp_path / name, redis_url=redis_server.url) for name in ("one", "two"))
    require_redis(one, *RedisRole)
    shutil.copytree(one.home, two.home)
    with pytest.raises(RunError, match="is a copy of an archive in another folder"):
        require_redis(two, *RedisRole)
    by_itself = dataclasses.replace(two, redis_namespace="two")
    require_redis(by_itself, *RedisRole, claim=True)
    require_redis(by_itself, *RedisRole)
    require_redis(one, *RedisRole)
    with pytest.raises(ForeignRedisError):
        require_redis(two, *RedisRole)
    require_redis(two, *RedisRole, claim=True)
    with pytest.raises(ForeignRedisError):
        require_redis(one, *RedisRole)


async def test_with_the_same_namespace_the_second_is_refused(
    make_site: Callable[..., Site], redis_server: Any, await_until: Await, tmp_path: Path
) -> None:
    """`up` and `consume` at once, `serve` once it knows its archive; each in one sentence, and nothing is touched."""
    first, second = make_site("one"), make_site("two")
    first.start_consumer()
    first.start_replica()
    await await_until(first.ready, 20, "the first to be ready")
    with redis_server.client() as client:
        await await_until(lambda: client.exists("recollect:owner"), what="its mark")
        ours = known_identity(first.home / "archive")
        assert ours is not None
        port = ["--port", str(second.port)]
        for verb in (["up", *port], ["consume", "--admin-port", "1"], ["serve", "--port", "1"], ["balance", *port]):
            refused = recollect(second.environ, *verb)
            assert refused.returncode == 1, refused
            sentence = refused.stderr.strip()
            owned = f"recollect: The archive {ours.archive} owns the namespace recollect of the Redis at 127.0.0.1:"
            assert sentence.startswith(owned), sentence
            assert "\n" not in sentence
        known = client.zrange("recollect:producers", 0, -1)
        assert len(known) == 1
        # On purpose it takes the place over, and the first one's consumer lets go.
        second.environ["RECOLLECT_CONSUMER_ORPHAN_AFTER_S"] = "60"
        second.start_consumer(claim=True)
        theirs = known_identity(second.home / "archive")
        assert theirs is not None
        await await_until(lambda: client.get("recollect:owner") == f"{theirs.archive} {ours.archive}".encode(), 20)
