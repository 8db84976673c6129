"""Whether a Redis can carry telemetry: every command tried, nothing changed, and the users of the shipped ACL file."""

import ast
import asyncio
import hashlib
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from loadbalancer.binaries import find_redis
from telemetry.archive.archive import Archive
from telemetry.archive.archive_reader import read
from telemetry.batch import Position
from telemetry.consumer.consumer import Consumer
from telemetry.errors import RedisUnfitError, StreamError, StreamRefusedError
from telemetry.events import Served, decode
from telemetry.producer import Producer
from telemetry.settings import ConsumerSettings, ProducerSettings
from telemetry.stream import redis_feed_stream as feed_module
from telemetry.stream import redis_stream as stream_module
from telemetry.stream.feed_stream import FeedEnds
from telemetry.stream.key_names import KeyNames
from telemetry.stream.redis_check import RedisReport, RedisRole, assess, check_redis, command_checks
from telemetry.stream.redis_connection import Refusal
from telemetry.stream.redis_feed_stream import RedisFeedStream
from telemetry.stream.redis_stream import RedisStream
from tests.conftest import RedisServer
from tests.support import sample_events
from tests.support.machines.redis_cluster import RedisCluster

AwaitUntil = Callable[..., Awaitable[None]]
ROOT = Path(__file__).parents[3]
ACL = ROOT / "telemetry" / "stream" / "redis.acl"
TRIALS = command_checks(KeyNames())
HELLO = [b"server", b"redis", b"version", b"7.2.4", b"mode", b"standalone", b"role", b"master"]
SEEN = [[b"maxmemory-policy", b"noeviction"], [b"appendonly", b"yes"], b"", b""]


def harmless(trial: Any) -> Any:
    return None if trial.harmless is None else Refusal(f"ERR {trial.harmless}")


def judged(*, hello: Any = HELLO, looks: Any = SEEN, all_say: str | None = None) -> RedisReport:
    replies = [(trial, harmless(trial) if all_say is None else Refusal(all_say)) for trial in TRIALS]
    return assess("r:6379/0", hello, {"r:6379/0": looks}, replies)


def test_a_good_redis_has_neither_faults_nor_risks() -> None:
    """The refusal that a check provokes is no fault."""
    found = judged()
    assert (found.version, found.unfit_for(*RedisRole), found.failing, found.warnings) == ("redis 7.2.4", [], [], [])


@pytest.mark.parametrize(
    ("mode", "version", "words"),
    [
        (b"sentinel", b"7.2.4", "a Redis Sentinel, which is not supported"),
        (b"standalone", b"6.2.14", "its version is 6.2.14, 7.0 or newer is needed"),
    ],
)
def test_what_is_not_supported_is_named(mode: bytes, version: bytes, words: str) -> None:
    """It is reported once, although each command is refused."""
    hello = [b"server", b"redis", b"version", version, b"mode", mode]
    (fault,) = judged(hello=hello, all_say="ERR unknown command").unfit_for(*RedisRole)
    assert words in fault


@pytest.mark.parametrize(
    ("text", "lasting", "words"),
    [
        ("CLUSTERDOWN Hash slot not served", False, "a part of its Redis Cluster is down"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", False, "is being moved"),
        ("ERR unknown command 'XADD', with args beginning with: ", True, "does not know a command"),
        ("OOM command not allowed when used memory > 'maxmemory'.", False, "it is full"),
        ("READONLY You can't write against a read only replica.", False, "a read-only replica"),
        ("MISCONF Redis is configured to save RDB snapshots", False, "cannot save"),
        ("BUSY Redis is busy running a script.", False, "BUSY Redis is busy"),
    ],
)
def test_refusals_become_sentences(text: str, lasting: bool, words: str) -> None:
    """A lasting fault is refused at the start; a passing one is not, because events wait in the write-ahead logs."""
    found = judged(all_say=text)
    sentences = found.unfit_for(*RedisRole) if lasting else found.failing
    assert len(sentences) == 1
    assert words in sentences[0]
    assert not (found.failing if lasting else found.unfit_for(*RedisRole))


@pytest.mark.parametrize(
    ("policy", "fault", "doubt"),
    [(b"noeviction", False, False), (b"volatile-lru", False, True), (b"allkeys-lru", True, False)],
)
def test_a_policy_that_evicts_streams_is_a_fault(policy: bytes, fault: bool, doubt: bool) -> None:
    """No key expires, so volatile policies evict none. INFO is read where CONFIG GET is denied."""
    denied = Refusal("NOPERM User u has no permissions to run the 'config|get' command")
    info = b"# Memory\r\nmaxmemory_policy:" + policy + b"\r\n"
    for looks in ([[b"maxmemory-policy", policy], *SEEN[1:]], [denied, SEEN[1], info, b""]):
        found = judged(looks=looks)
        assert (bool(found.unfit_for(RedisRole.REPLICA)), bool(found.risks)) == (fault, doubt)


def test_unreadable_settings_are_reported_and_no_fault() -> None:
    """A user with exactly the necessary rights cannot read settings."""
    denied = Refusal("NOPERM this user has no permissions to run the 'config|get' command")
    found = judged(looks=[denied] * 4)
    assert (found.unfit_for(*RedisRole), found.risks) == ([], [])
    assert found.warnings == ["its user may not look at maxmemory-policy and appendonly"]


def test_every_command_of_the_stream_is_tried() -> None:
    """Read from its source: what begins a tuple or list in capitals is a command, or a known argument."""
    sources = [Path(module.__file__ or "").read_text(encoding="utf-8") for module in (stream_module, feed_module)]
    arguments = {"BLOCK", "STREAMS", "NOGROUP"}
    sent = set()
    for node in [node for source in sources for node in ast.walk(ast.parse(source))]:
        if isinstance(node, ast.Tuple | ast.List) and node.elts and isinstance(node.elts[0], ast.Constant):
            word = node.elts[0].value
            if isinstance(word, str) and word.isupper() and word.isalpha() and word not in arguments:
                sent.add(word)
    assert sent == {trial.name.split()[0] for trial in TRIALS}


def granted(user: str) -> set[str]:
    (line,) = [line for line in ACL.read_text().splitlines() if line.startswith(f"user {user} ")]
    return {word[1:] for word in line.split() if word.startswith("+")}


def test_the_shipped_redis_users_have_exactly_the_rights_that_are_needed() -> None:
    """The file, the probes and the page agree."""
    names = {
        role: {check.name.lower().replace(" ", "|") for check in TRIALS if check.role is role} for role in RedisRole
    }
    assert granted("recollect-replica") == names[RedisRole.REPLICA]
    assert granted("recollect-consumer") == names[RedisRole.REPLICA] | names[RedisRole.CONSUMER]
    page = (ROOT / "docs" / "redis.md").read_text()
    assert ACL.read_text() in page


@pytest.fixture
def guarded(redis_server: RedisServer) -> RedisServer:
    """A Redis with the users of `redis.acl`."""
    redis_server.stop()
    text = ACL.read_text()
    for name in ("ADMIN", "REPLICA", "CONSUMER"):
        text = text.replace(f"{name}_PASSWORD_SHA256", hashlib.sha256(name.encode()).hexdigest())
    (redis_server.dir / "users.acl").write_text(text)
    redis_server.options = ["--aclfile", str(redis_server.dir / "users.acl")]
    redis_server.start()
    return redis_server


def address(server: RedisServer, user: str) -> str:
    return f"redis://recollect-{user}:{user.upper()}@127.0.0.1:{server.port}/0"


def client(server: RedisServer, user: str | None = None) -> redis.Redis:
    name = "default" if user is None else f"recollect-{user}"
    return redis.Redis(port=server.port, username=name, password="ADMIN" if user is None else user.upper())


async def test_telemetry_works_with_the_shipped_redis_users(
    guarded: RedisServer, tmp_path: Path, await_until: AwaitUntil
) -> None:
    """End to end, through a loss of everything, with no command that is granted in vain, and none that is missing."""
    settings = ConsumerSettings(discover_interval_s=0.05, block_ms=50, heartbeat_s=0.1, backoff_s=0.1)
    shipping = ProducerSettings(check_interval_s=0.05, linger_s=0.001, backoff_s=0.1)
    consumer = Consumer(RedisStream(address(guarded, "consumer")), Archive(tmp_path / "archive"), [], settings)
    producer = Producer(tmp_path / "spool", 0, shipping, RedisStream(address(guarded, "replica")))
    tasks = [asyncio.create_task(consumer.run()), asyncio.create_task(producer.run())]

    def archived() -> set[str]:
        events = [decode(line).event for line in read(tmp_path / "archive")]
        return {event.event_id for event in events if isinstance(event, Served)}

    feed, follower = RedisFeedStream(address(guarded, "consumer")), RedisFeedStream(address(guarded, "replica"))
    for end in (feed, follower):
        await end.connect()
    await feed.begin(1, b"a")
    assert await feed.append(Position(1, 2), b"b", first_kept=2)
    assert await follower.read(Position(0, 0), max_entries=9, block_ms=10) == [(Position(1, 2), b"b")]
    assert await follower.ends() == FeedEnds(Position(1, 2), Position(1, 2), 1)
    producer.offer(sample_events.served(event_id="before-the-loss"))
    await await_until(lambda: archived() == {"before-the-loss"})
    with client(guarded) as admin:
        admin.flushall()
        producer.offer(sample_events.served(event_id="after-the-loss"))
        await await_until(lambda: archived() == {"before-the-loss", "after-the-loss"})
        await await_until(lambda: admin.exists("recollect:owner"))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        producer.close()
        for end in (feed, follower):
            await end.close()
        used = {name.removeprefix("cmdstat_") for name in admin.info("commandstats")}
        denied = list(admin.acl_log())
    assert denied == []
    # These two are for a Redis that is full, or lost a part of a stream.
    assert granted("recollect-consumer") - used == {"xrange", "unlink"}


DENIED = (
    "FLUSHALL",
    "KEYS *",
    "EVAL return(1) 0",
    "CONFIG GET *",
    "DEL recollect:owner",
    "ACL LIST",
    "SHUTDOWN",
    "GET other:owner",
    "XADD other:events:{p} * k v",
)
DENIED_TO_REPLICAS = (
    "HSET recollect:watermark:{p} epoch 9 seq 9",
    "SET recollect:owner x",
    "XTRIM recollect:events:{p} MAXLEN 0",
    "ZADD recollect:owner 1 x",
)


def test_everything_else_is_denied(guarded: RedisServer) -> None:
    """A replica's user cannot write watermarks; neither user reads or removes foreign keys."""
    for user, commands in (("replica", DENIED + DENIED_TO_REPLICAS), ("consumer", DENIED)):
        with client(guarded, user) as asked:
            for command in commands:
                with pytest.raises(redis.exceptions.NoPermissionError):
                    asked.execute_command(*command.split())


async def test_a_check_changes_nothing_and_distinguishes_the_roles(guarded: RedisServer) -> None:
    """A replica's user is good for replicas alone; a wrong password and a missing one are named, and not repeated."""
    with client(guarded) as admin:
        changes = admin.info("persistence")["rdb_changes_since_last_save"]
        replica = await check_redis(address(guarded, "replica"), "recollect")
        assert replica.unfit_for(RedisRole.REPLICA) == []
        (fault,) = replica.unfit_for(RedisRole.CONSUMER)
        assert "may not send SET, ZRANGE, XGROUP CREATE" in fault
        consumer = await check_redis(address(guarded, "consumer"), "recollect")
        assert (consumer.unfit_for(*RedisRole), consumer.failing) == ([], [])
        assert consumer.unreadable == ["maxmemory-policy", "appendonly"]
        elsewhere = await check_redis(address(guarded, "consumer"), "shop")
        assert "may not send GET, ZADD" in elsewhere.unfit_for(RedisRole.REPLICA)[0]
        assert admin.dbsize() == 0
        assert admin.info("persistence")["rdb_changes_since_last_save"] == changes
    wrong = await check_redis(f"redis://recollect-replica:sesame@127.0.0.1:{guarded.port}/0", "recollect")
    assert "it refuses the login: WRONGPASS" in wrong.unfit_for(*RedisRole)[0]
    assert "sesame" not in repr(wrong)
    without = await check_redis(guarded.url, "recollect")
    assert without.unfit_for(*RedisRole) == ["it asks for a password, and its address has none"]
    with pytest.raises(RedisUnfitError, match="asks for a password"):
        await RedisStream(guarded.url).connect()


def test_redis_refuses_the_file_of_users_until_it_has_passwords(short_path: Path) -> None:
    """No installation runs with a password that is in a repository."""
    options = ["--port", "0", "--unixsocket", str(short_path / "redis.sock"), "--dir", str(short_path)]
    argv = [str(find_redis(None).path), *options, "--aclfile", str(ACL)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "ACL errors detected" in done.stdout + done.stderr


@pytest.fixture
def special(tmp_path: Path, free_port: Callable[[], int], wait_until: Callable[..., None]) -> Iterator[Any]:
    """Start a Redis of another kind; returns its URL."""
    running: list[subprocess.Popen[bytes]] = []

    def start(kind: str) -> str:
        port = free_port()
        config = tmp_path / "special.conf"
        config.write_text(f"port {port}\ndir {tmp_path}\nsave ''\n")
        options = ["--sentinel"] if kind == "sentinel" else ["--cluster-enabled", "yes"]
        argv = [str(find_redis(None).path), str(config), *options]
        running.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        url = f"redis://127.0.0.1:{port}/0"

        def answers() -> bool:
            try:
                with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as asked:
                    return bool(asked.ping())
            except redis.RedisError:
                return False

        wait_until(answers, what=f"a Redis of the kind {kind}")
        return url

    yield start
    for process in running:
        process.kill()
        process.wait()


async def test_a_sentinel_is_recognised(special: Any) -> None:
    """A real one; the error is a sentence."""
    (fault,) = (await check_redis(special("sentinel"), "recollect")).unfit_for(*RedisRole)
    assert "a Redis Sentinel" in fault


async def test_a_cluster_without_its_slots_is_down(special: Any) -> None:
    """A real node; the error is a sentence instead of a bare CLUSTERDOWN, and may pass."""
    url = special("cluster")
    found = await check_redis(url, "recollect")
    assert (found.unfit_for(*RedisRole), found.failing) == ([], ["a part of its Redis Cluster is down"])
    assert "16384 of the 16384 slots of its cluster have no node" in found.risks
    stream = RedisStream(url)
    await stream.connect()
    with pytest.raises(StreamRefusedError, match="a part of its Redis Cluster is down"):
        await stream.read_mark()
    await stream.close()


async def test_every_master_of_a_cluster_is_looked_at(redis_cluster: RedisCluster) -> None:
    """One node that evicts loses events of the producers whose slots it has."""
    good = await check_redis(redis_cluster.url, "recollect")
    assert (good.unfit_for(*RedisRole), good.failing) == ([], [])
    assert "so its part of the cluster is away while that node is" in good.risks[0]
    odd = redis_cluster.masters[1]
    odd.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        (fault,) = (await check_redis(redis_cluster.url, "recollect")).unfit_for(*RedisRole)
    finally:
        odd.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert f"its maxmemory-policy allkeys-lru at 127.0.0.1:{odd.port} evicts events" in fault


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://u:sesame@h/shop", "not the number of a database"),
        ("redis://u:sesame@h:port/0", "not a redis://"),
        ("redis+sentinel://u:sesame@h", "Redis Sentinel is not supported"),
        ("redis://u:sesame@h/0?socket_timeout=5", "socket_timeout"),
        ("redis://u:sesame@h/0?ssl_ca_certs=/etc/ssl/ours.pem", "ssl_ca_certs, which only rediss:// takes"),
        ("rediss://u:sesame@h/0?ssl_ca_certs=/nowhere/ours.pem", "/nowhere/ours.pem"),
        ("rediss://u:sesame@h/0?ssl_cert_reqs=perhaps", "perhaps"),
        ("rediss://u:sesame@h/0?ssl_magic=1", "ssl_magic"),
        ("unix://u:sesame@", "names no socket"),
    ],
)
def test_an_address_that_cannot_work_is_refused_in_a_sentence_without_its_password(url: str, words: str) -> None:
    """The option or the file is named."""
    with pytest.raises(StreamError) as caught:
        RedisStream(url)
    assert words in str(caught.value)
    assert "sesame" not in str(caught.value)
