"""Real parts for the tests: a Redis process of their own, free ports, and waiting for conditions."""

import asyncio
import contextlib
import fcntl
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import settings
from redis.backoff import NoBackoff
from redis.retry import Retry
from scipy.sparse import csr_array
from xdist.scheduler import LoadFileScheduling

from loadbalancer import ports
from loadbalancer.binaries import find_redis
from service.models.publication import publication
from service.models.publication.publication import activate
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary

# What fails in a helper is shown like what fails in a test.
pytest.register_assert_rewrite("tests.support")

from tests.support.machines.redis_cluster import RedisCluster  # noqa: E402
from tests.support.replicas.replica_app import client, context  # noqa: E402, F401 - fixtures of several files

# How long an example takes is no promise, and other work on the machine makes any of them slow.
settings.register_profile("untimed", parent=settings.default, deadline=None)
settings.load_profile("untimed")

# Of the extras `deep`, `ann` and `cluster`. Tests that need them skip without them; in CI they must be there.
EXTRA_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "faiss", "ray")
NEED_TORCH = tuple(Path(__file__).parent / f"service/training/{folder}" for folder in ("deep", "networks"))
# Whole installations under faults, which must answer every request in time: other tests would take their cores.
ALONE = frozenset(
    f"tests/integration/test_{name}.py"
    for name in (
        "balancer",
        "chaos",
        "drills",
        "isolation",
        "lost_nodes",
        "remote_replicas",
        "two_balancers",
        "two_services",
        "up",
    )
)


def _missing_packages() -> list[str]:
    return [name for name in EXTRA_PACKAGES if importlib.util.find_spec(name) is None]


def pytest_sessionstart() -> None:
    """Refuse to leave tests out in CI."""
    if os.environ.get("CI") == "true" and (missing := _missing_packages()):
        raise pytest.UsageError(f"CI runs all tests, and {', '.join(missing)} is not installed: run make deep cluster.")


def pytest_report_header() -> str | None:
    """Say which packages are missing."""
    missing = _missing_packages()
    return f"tests of {', '.join(missing)} are left out; make deep cluster adds them" if missing else None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out the tests of networks where PyTorch is not installed, because even their imports need it."""
    is_left_out = collection_path in NEED_TORCH and importlib.util.find_spec("torch") is None
    return True if is_left_out else None


def _file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the installations, which mostly wait, and end with the files that need the machine alone."""
    for item in items:
        if _file_of(item.nodeid) in ALONE:
            item.add_marker(pytest.mark.alone)
    items.sort(key=lambda item: (_file_of(item.nodeid) in ALONE, not item.nodeid.startswith("tests/integration/")))


@pytest.fixture
def restored_root() -> Iterator[None]:
    """Restore the root logger after a test that starts an application log."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class _Scheduling(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Gives each file to one worker, since its tests share fixtures, and all files of `ALONE` to the same worker."""

    def _split_scope(self, nodeid: str) -> str:
        file = _file_of(nodeid)
        return "alone" if file in ALONE else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling:
    """Hand out tests in the order in which they were collected."""
    config.option.loadscopereorder = False
    return _Scheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run an `alone` test while no other worker runs any; the time a test may take begins when its turn has come."""
    kind = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    # A test that waits to be alone keeps the gate, so that the other workers' next tests queue behind it.
    with _locked(Path(__file__).parent, kind) as open_gate, _locked(Path(__file__), kind):
        if kind == fcntl.LOCK_SH:
            open_gate()
        return (yield)


@contextlib.contextmanager
def _locked(path: Path, kind: int) -> Iterator[Callable[[], None]]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(descriptor, kind)
    try:
        yield lambda: fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        # Said and not left to the close: a process forked by the test may still have it open.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


# Each worker of pytest-xdist has ports of its own, below those that installations choose themselves.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORT_RANGE = range(10_000 + 1_000 * _WORKER, 11_000 + 1_000 * _WORKER)
# Handed out already, and perhaps not bound yet.
_PORTS: set[int] = set()


def _free_port() -> int:
    """Choose below the range of outgoing connections, which those of another worker's tests could otherwise take."""
    (port,) = ports.choose(1, taken=frozenset(_PORTS), among=_PORT_RANGE)
    _PORTS.add(port)
    return port


def _wait_until(predicate: Callable[[], object], timeout_s: float = 10.0, what: str = "the condition") -> None:
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s} s for {what}")
        time.sleep(0.005)


async def _await_until(
    predicate: Callable[[], object | Awaitable[object]], timeout_s: float = 10.0, what: str = "the condition"
) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        result = predicate()
        if isinstance(result, Awaitable):
            result = await result
        if result:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s} s for {what}")
        await asyncio.sleep(0.005)


class RedisServer:
    """A real redis-server with an append-only file, in a directory and on a port of its own.

    Attributes:
        options: More of its options; may be changed before it starts.
    """

    def __init__(self, directory: Path, port: int) -> None:
        self.options: list[str] = []
        self.dir = directory
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self.socket = directory / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start on the same port and directory as before, and wait until it answers."""
        argv = [str(find_redis(None).path), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.dir)]
        argv += ["--unixsocket", str(self.socket), "--unixsocketperm", "600"]
        argv += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--daemonize", "no"]
        argv += self.options
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_until(self._answers, what=f"Redis on port {self.port}")

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False

    def client(self) -> redis.Redis:
        """Return a new synchronous client, which tries nothing twice; use it as a context manager."""
        return redis.Redis(port=self.port, decode_responses=False, retry=Retry(NoBackoff(), 0))

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._signal_and_reap(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait until it is gone."""
        self._signal_and_reap(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def _signal_and_reap(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                # A Redis that cannot save stays, and its next start would find the port taken.
                self._process.kill()
                self._process.wait(timeout=10)
            self._process = None


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Return a function that gives a free loopback port."""
    return _free_port


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Return a function that waits for a condition, with a deadline."""
    return _wait_until


@pytest.fixture
def await_until() -> Callable[..., Awaitable[None]]:
    """Return a coroutine function that waits for a condition, with a deadline."""
    return _await_until


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path is short enough for a Unix socket; pytest's own can be too long."""
    directory = Path(tempfile.mkdtemp(prefix="recollect-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def redis_server(short_path: Path) -> Iterator[RedisServer]:
    """A fresh Redis process per test."""
    server = RedisServer(short_path, _free_port())
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def one_redis_cluster() -> Iterator[RedisCluster]:
    """Three masters without replicas, for all tests of a process that leave them running."""
    with tempfile.TemporaryDirectory(prefix="recollect-") as directory:
        cluster = RedisCluster(Path(directory), _free_port)
        yield cluster
        cluster.stop()


@pytest.fixture
def redis_cluster(one_redis_cluster: RedisCluster) -> RedisCluster:
    """A Redis Cluster of three masters, empty and with room."""
    one_redis_cluster.fill(full=False)
    one_redis_cluster.flush()
    return one_redis_cluster


def _make_snapshot(
    n_users: int = 7, n_items: int = 400, k: int = 8, seed: int = 0, *, duplicate_items: bool = False
) -> ModelSnapshot:
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(n_items, k)).astype(np.float32)
    bias = rng.normal(size=n_items).astype(np.float32)
    if duplicate_items:
        items[:] = items[0]
        bias[:] = bias[0]
    seen = (rng.random((n_users, n_items)) < 0.1).astype(np.float32)
    return ModelSnapshot(
        algorithm="svd",
        settings={"n_factors": k},
        users=Vocabulary(f"u{i}" for i in range(n_users)),
        items=Vocabulary(f"i{i}" for i in range(n_items)),
        user_factors=rng.normal(size=(n_users, k)).astype(np.float32),
        item_factors=items,
        user_bias=rng.normal(size=n_users).astype(np.float32),
        item_bias=bias,
        global_mean=3.5,
        rating_min=1.0,
        rating_max=5.0,
        history=csr_array(seen),
        popularity=rng.integers(0, 5, n_items).astype(np.float32),
        data_as_of="2026-01-01T00:00:00.000Z",
    )


@pytest.fixture(scope="session")
def make_snapshot() -> Callable[..., ModelSnapshot]:
    """Return a function that makes a small random model: users u0.., items i0.., a tenth of the pairs seen."""
    return _make_snapshot


@pytest.fixture(scope="session")
def publish_snapshot() -> Callable[[Path, ModelSnapshot], str]:
    """Return a function that publishes a model into a models directory, activates it, and returns its version."""

    def publish(models_dir: Path, snapshot: ModelSnapshot) -> str:
        version = publication.publish(models_dir, snapshot, data={"fingerprint": "sha256:0"}, measures={"rmse": 0.9})
        activate(models_dir, version)
        return version

    return publish


MOVIELENS = Path(os.environ.get("RECOLLECT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def ml_1m() -> Path:
    """MovieLens 1M, for tests that skip without it (it may not be redistributed)."""
    path = MOVIELENS / "ml-1m"
    if not (path / "ratings.dat").exists():
        pytest.skip("MovieLens 1M is not here; set RECOLLECT_TEST_DATA to the folder that holds ml-1m/")
    return path


@pytest.fixture(scope="session")
def ml_small() -> Path:
    """MovieLens latest-small, for tests that skip without it."""
    path = MOVIELENS / "ml-latest-small"
    if not (path / "ratings.csv").exists():
        pytest.skip("MovieLens latest-small is not here; set RECOLLECT_TEST_DATA to the folder that holds it")
    return path
