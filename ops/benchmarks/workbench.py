"""The processes of a benchmark: Redis, replicas, a consumer and the yardstick, with a model, in a scratch directory.

Invariant: everything started here is stopped, in reverse order, at the end of the context; no setting of the operator's
installation reaches it, except RECOLLECT_REDIS_SERVER.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from loadbalancer import ports, roster
from loadbalancer.binaries import find_redis
from loadbalancer.settings import BalancerSettings
from ops.console.foreground import parent_death_hook
from service.declared_settings import read
from service.errors import RunError, UsageError
from telemetry.stream.key_names import DEFAULT_NAMESPACE
from telemetry.stream.redis_check import check_redis

HOST = "127.0.0.1"
SVD_100 = ("--algorithm", "svd", "--set", "n_factors=100")
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 40.0
_ARCHIVE_TIMEOUT_S = 120.0
# One thread per library: a round measures one core, without thread pools on others.
_THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Workbench(contextlib.AbstractContextManager["Workbench"]):
    """Starts parts and stops them.

    Args:
        scratch: An empty directory for state, logs and output.
        environ: The environment of the parts; its settings are left out.
    """

    @classmethod
    @contextlib.contextmanager
    def temporary(cls, cores: Iterable[int] | None = None) -> "Iterator[Workbench]":
        """Open a workbench in a temporary directory, on some cores, that is removed also after SIGTERM."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        with (
            tempfile.TemporaryDirectory(prefix="recollect-bench-") as scratch,
            contextlib.nullcontext() if cores is None else pinned(cores),
            cls(Path(scratch), os.environ) as workbench,
        ):
            yield workbench

    def __init__(self, scratch: Path, environ: Mapping[str, str]) -> None:
        self.scratch = scratch
        inherited = {name: value for name, value in environ.items() if not name.startswith("RECOLLECT_")}
        kept = {name: environ[name] for name in ("RECOLLECT_REDIS_SERVER",) if name in environ}
        ours = {
            "RECOLLECT_HOME": str(scratch / "home"),
            "RECOLLECT_LOGS": str(scratch / "logs"),
            "RECOLLECT_FILE": "none",
        }
        self._environ = inherited | kept | ours | dict.fromkeys(_THREAD_COUNTS, "1")
        self._stack = contextlib.ExitStack()
        self._redis: tuple[subprocess.Popen[bytes], Callable[[], subprocess.Popen[bytes]]]

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def train(self, data: str, options: Sequence[str] = SVD_100) -> tuple[list[str], dict[str, Any]]:
        """Publish and activate a model of `data` as for `recollect train`, by default SVD with 100 factors.

        Returns:
            Its users, and its numbers of users, items and factors.

        Raises:
            RunError: Training failed.
        """
        from service.models.files import active_model, artefact

        argv = [sys.executable, "-m", "ops", "train", "--data", data, *options]
        # It is here for its shape; its lists may lose to popularity.
        argv.append("--force")
        # Standard output is for the benchmark's result.
        if (code := subprocess.run(argv, env=self._environ, stdout=sys.stderr, check=False).returncode) != 0:
            raise RunError(f"Training on {data} failed with status {code}.")
        models_dir = self.home / "models"
        version = active_model.version(models_dir)
        if version is None:
            raise RunError("Training succeeded but activated no model.")
        snapshot = artefact.load(models_dir / version)
        shape = {"users": len(snapshot.users), "items": len(snapshot.items), "factors": snapshot.n_factors}
        return list(snapshot.users.id_of), shape

    def start_redis(self) -> str:
        """Start a Redis with an append-only file and return its URL."""
        (port,) = ports.choose(1)
        directory = self.scratch / "redis"
        directory.mkdir()
        binary = find_redis(read(BalancerSettings, self._environ).redis_server)
        argv = [str(binary.path), "--port", str(port), "--bind", HOST, "--dir", str(directory), "--daemonize", "no"]
        argv += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        url = f"redis://{HOST}:{port}/0"

        def start() -> subprocess.Popen[bytes]:
            return self.start("redis", argv, lambda: _redis_answers(url))

        self._redis = start(), start
        return url

    @contextlib.contextmanager
    def without_redis(self) -> Iterator[None]:
        """Stop the Redis of `start_redis` during the context; it keeps its data."""
        running, start = self._redis
        _stop(running)
        try:
            yield
        finally:
            self._redis = start(), start

    def start_consumer(self, redis_url: str) -> int:
        """Start the consumer of that Redis, and return its admin port."""
        (admin_port,) = ports.choose(1)
        argv = ["consume", "--admin-port", str(admin_port)]
        self._start_command("consumer", argv, redis_url, lambda: answers(admin_port, "/readyz"))
        return admin_port

    def start_replica(self, redis_url: str) -> tuple[int, int]:
        """Start a replica that ships to that Redis; return its port and admin port."""
        port, admin_port = ports.choose(2)
        argv = ["serve", "--slot", "0", "--host", HOST, "--port", str(port), "--admin-port", str(admin_port)]
        self._start_command("replica", argv, redis_url, lambda: answers(admin_port, "/readyz"))
        return port, admin_port

    def start_all(self, redis_url: str, replicas: int, candidates: int = 0) -> int:
        """Start an installation with that Redis, and return the balancer's port; with `candidates`, of two services."""
        (port,) = ports.choose(1)
        argv = ["up", "--replicas", str(replicas), "--candidates", str(candidates), "--port", str(port)]
        self._start_command("up", argv, redis_url, lambda: answers(port, "/readyz") and self._all_ready())
        return port

    def _start_command(self, name: str, argv: list[str], redis_url: str, ready: Callable[[], bool]) -> None:
        self._environ["RECOLLECT_REDIS_URL"] = redis_url
        self.start(name, [sys.executable, "-m", "ops", *argv], ready)

    @property
    def home(self) -> Path:
        """RECOLLECT_HOME of the parts."""
        return self.scratch / "home"

    def _all_ready(self) -> bool:
        rows = roster.read(self.home)
        return bool(rows) and all(row.state == "ready" for row in rows)

    def start_hello(self) -> int:
        """Start the yardstick and return its port."""
        (port,) = ports.choose(1)
        argv = [sys.executable, "-m", "ops.benchmarks", "hello", "--port", str(port)]
        self.start("hello", argv, lambda: answers(port, "/"))
        return port

    def start(self, name: str, argv: list[str], ready: Callable[[], bool]) -> subprocess.Popen[bytes]:
        """Start a process, wait until it is ready, and return it.

        Raises:
            RunError: It ended, or was not ready in time; the message has its last line of output.
        """
        output = self.scratch / f"{name}.out"
        with output.open("wb") as sink:
            process = subprocess.Popen(
                argv,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=self._environ,
                preexec_fn=parent_death_hook(os.getpid()),  # noqa: PLW1509  # it takes no lock
            )
        self._stack.callback(_stop, process)
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline_s:
                lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise RunError(f"{name} did not become ready: {lines[-1] if lines else 'it printed nothing'}.")
            time.sleep(0.02)
        return process


def answers(port: int, path: str) -> bool:
    """Return whether a GET of 127.0.0.1 is answered with 200."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _redis_answers(url: str) -> bool:
    # In a thread of its own, because the caller may have an event loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, check_redis(url, DEFAULT_NAMESPACE)).result().unreachable is None


def scrape(admin_port: int) -> defaultdict[str, float]:
    """Return a part's metrics by name, summed over their labels; 0 for an unknown name.

    Raises:
        RunError: The part does not answer.
    """
    from prometheus_client.parser import text_string_to_metric_families

    try:
        with urllib.request.urlopen(f"http://{HOST}:{admin_port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError as error:
        raise RunError(f"The metrics at {HOST}:{admin_port} cannot be read: {error}.") from error
    values: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name] += sample.value
    return values


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def replica_admin_ports(home: Path) -> list[int]:
    """Return the admin ports of an installation's replicas."""
    rows = (row for row in roster.read(home) if roster.is_replica(row))
    return [row.admin_port for row in rows if row.admin_port is not None]


def event_counts(replica_admin_port: int, consumer_admin_port: int) -> dict[str, int]:
    """Return the numbers of accepted, dropped and archived events."""
    replica, consumer = scrape(replica_admin_port), scrape(consumer_admin_port)
    return {
        "accepted": int(replica["recollect_telemetry_accepted_total"]),
        "dropped": int(replica["recollect_telemetry_dropped_total"] + replica["recollect_telemetry_refused_total"]),
        "archived": int(consumer["recollect_consumer_archived_total"]),
    }


def wait_until_archived(admin_ports: Iterable[int]) -> None:
    """Wait until the archive has every event that these replicas accepted.

    Raises:
        RunError: It has not within two minutes.
    """
    deadline_s = time.monotonic() + _ARCHIVE_TIMEOUT_S
    for port in admin_ports:
        while (held := scrape(port)["recollect_telemetry_unarchived_events"]) > 0:
            if time.monotonic() > deadline_s:
                raise RunError(f"After {_ARCHIVE_TIMEOUT_S:g} s {held:.0f} events were not archived.")
            time.sleep(0.1)


def two_cores() -> tuple[int, int]:
    """Return the core of the server and that of the generator.

    Raises:
        UsageError: This process may run on one core only.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UsageError("The benchmark needs two cores, one for the server and one for the generator.")
    return cores[0], cores[1]


@contextlib.contextmanager
def pinned(cores: Iterable[int]) -> Iterator[None]:
    """Pin this process, and so all children started inside, to some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
