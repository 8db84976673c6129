import asyncio
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadbalancer import roster
from ops.commands.doctor import CHECKS, run_check
from service.config import Config
from telemetry.batch import Position
from telemetry.catalogue.archive_identity import identify
from telemetry.stream.event_stream import publish_watermarks
from telemetry.stream.redis_stream import RedisStream
from telemetry.stream.watermark_seal import Seal, load_or_create_key
from telemetry.wal.slot_identity import IDENTITY_FILE, SlotIdentity, encode_identity


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A sound installation that has not been started yet."""
    for name in [name for name in os.environ if name.startswith("RECOLLECT_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return Config(home=home, logs=tmp_path / "logs")


def _finding(config: Config) -> tuple[str, str]:
    return run_check(CHECKS["redis"], config)


def test_a_configured_redis_must_answer(config: Config, redis_server: Any) -> None:
    """The finding has its version and never its password."""
    configured = dataclasses.replace(config, redis_url=redis_server.url)
    status, sentence = _finding(configured)
    assert status == "ok"
    assert f"127.0.0.1:{redis_server.port}/0, redis " in sentence
    assert "accepts every command needed in the namespace recollect" in sentence
    with redis_server.client() as client:
        client.config_set("requirepass", "open:sesame")
    assert _finding(configured)[0] == "fail"
    secret = dataclasses.replace(config, redis_url=f"redis://:open%3Asesame@127.0.0.1:{redis_server.port}/0")
    assert _finding(secret)[0] == "ok"
    wrong = dataclasses.replace(config, redis_url=f"redis://:guess@127.0.0.1:{redis_server.port}/0")
    status, sentence = _finding(wrong)
    assert (status, "guess" in sentence) == ("fail", False)
    redis_server.kill()
    status, sentence = _finding(secret)
    assert (status, "sesame" in sentence) == ("fail", False)


def test_a_redis_that_loses_events_or_is_another_archives_is_a_fault(
    config: Config, redis_server: Any, wait_until: Callable[..., None]
) -> None:
    """A setting that only costs time is a warning."""
    configured = dataclasses.replace(config, redis_url=redis_server.url)
    with redis_server.client() as client:
        for setting, value, before, status, words in (
            ("maxmemory-policy", "allkeys-lru", "noeviction", "fail", "evicts events that are not archived"),
            ("maxmemory-policy", "volatile-ttl", "noeviction", "warn", "evicts none of its keys"),
            ("appendonly", "no", "yes", "warn", "appendonly is off"),
            ("maxmemory", "1", "0", "fail", "it is full"),
        ):
            client.config_set(setting, value)
            found = _finding(configured)
            assert (found[0], words in found[1]) == (status, True), found
            client.config_set(setting, before)
        # A Redis that begins an append-only file does not end before it has one.
        wait_until(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0, what="the append-only file")
        ours = identify(config.archive_dir)
        client.set("recollect:owner", ours.archive)
        assert _finding(configured)[0] == "ok"
        client.set("recollect:owner", "another-archive")
        status, sentence = _finding(configured)
        assert (status, "The archive another-archive owns" in sentence) == ("fail", True)


async def _publish(url: str, seal: Seal) -> None:
    stream = RedisStream(url, seal=seal)
    await stream.connect()
    await publish_watermarks(stream, {"01a1": Position(1, 9)})
    await stream.close()


def test_a_watermark_with_another_machines_seal_is_a_fault(config: Config, redis_server: Any) -> None:
    """A machine without the consumer's key never releases archived events; the sentence names the file to copy."""
    config = dataclasses.replace(config, redis_url=redis_server.url)
    slot = config.spool_dir / "0"
    slot.mkdir(parents=True)
    (slot / IDENTITY_FILE).write_bytes(encode_identity(SlotIdentity("01a1", 1)))
    asyncio.run(_publish(redis_server.url, Seal(load_or_create_key(config.archive_dir))))
    status, sentence = _finding(config)
    assert status != "fail", sentence
    asyncio.run(_publish(redis_server.url, Seal(b"another" * 5)))
    status, sentence = _finding(config)
    assert status == "fail"
    assert "copy the consumer's key file here" in sentence


def test_the_redis_of_a_running_installation_is_checked_on_its_socket(config: Config, redis_server: Any) -> None:
    """There is no address in the settings."""
    (config.home / "run").mkdir()
    roster.write(config.home, [roster.Row("redis", 1, str(redis_server.socket), None, None, "ready", 0, "")])
    status, sentence = _finding(config)
    assert (status, f"The Redis at {redis_server.socket}" in sentence) == ("ok", True)


@pytest.mark.parametrize("url", ["http://127.0.0.1", "redis://127.0.0.1:many", "unix:///nonexistent.sock", "nonsense"])
def test_an_unusable_redis_url_is_a_fault(config: Config, url: str) -> None:
    """Reported in a sentence, not in a traceback."""
    assert _finding(dataclasses.replace(config, redis_url=url))[0] == "fail"


def test_a_tls_handshake_that_fails_is_a_fault_and_leaves_no_socket(config: Config, redis_server: Any) -> None:
    """rediss:// at a server without TLS."""
    url = f"rediss://127.0.0.1:{redis_server.port}/0"
    status, sentence = _finding(dataclasses.replace(config, redis_url=url))
    assert (status, "does not answer" in sentence) == ("fail", True)
