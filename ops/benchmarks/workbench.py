"""What a benchmark stands on: a model, Redis, a replica, a consumer and the yardstick, in a directory of their own.

The invariant: everything started here is stopped, in reverse order, when the workbench is left, however it is left; and
no setting of the operator's own installation reaches it, save which Redis program to use.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from loadbalancer import ports, roster
from loadbalancer.binaries import find_redis
from loadbalancer.settings import BalancerSettings
from ops.console.foreground import dies_with
from service.declared_settings import read
from service.errors import RunError, UsageError
from telemetry.stream.key_names import DEFAULT_NAMESPACE
from telemetry.stream.redis_check import check_redis

HOST = "127.0.0.1"
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 40.0
# One thread per library: a round must measure one core, not what a thread pool finds beside it.
_THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Workbench(contextlib.AbstractContextManager["Workbench"]):
    """Starts parts and stops them.

    Args:
        scratch: An empty directory for state, logs and output.
        environ: The environment that the parts inherit, without its settings.
    """

    def __init__(self, scratch: Path, environ: Mapping[str, str]) -> None:
        self._scratch = scratch
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

    def train(self, data: str) -> tuple[list[str], dict[str, Any]]:
        """Publish and activate an SVD model with 100 factors.

        Args:
            data: As for `recollect train`.

        Returns:
            Its users, and its numbers of users, items and factors.

        Raises:
            RunError: Training failed.
        """
        from service.models import active_model, artefact

        argv = [sys.executable, "-m", "ops", "train", "--data", data, "--algorithm", "svd", "--set", "n_factors=100"]
        # All output to standard error: standard output is for the benchmark's result.
        if (code := subprocess.run(argv, env=self._environ, stdout=sys.stderr, check=False).returncode) != 0:
            raise RunError(f"Training on {data} failed with status {code}.")
        models_dir = self.home / "models"
        version = active_model.version(models_dir)
        if version is None:
            raise RunError("Training ended well but activated no model.")
        snapshot = artefact.load(models_dir / version)
        shape = {"users": len(snapshot.users), "items": len(snapshot.items), "factors": snapshot.n_factors}
        return list(snapshot.users.id_of), shape

    def start_redis(self) -> str:
        """Start a Redis with an append-only file and return its URL."""
        (port,) = ports.choose(1)
        directory = self._scratch / "redis"
        directory.mkdir()
        binary = find_redis(read(BalancerSettings, self._environ).redis_server)
        argv = [str(binary.path), "--port", str(port), "--bind", HOST, "--dir", str(directory), "--daemonize", "no"]
        argv += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        url = f"redis://{HOST}:{port}/0"

        def start() -> subprocess.Popen[bytes]:
            return self.start(
                "redis", argv, lambda: asyncio.run(check_redis(url, DEFAULT_NAMESPACE)).unreachable is None
            )

        self._redis = start(), start
        return url

    @contextlib.contextmanager
    def without_redis(self) -> Iterator[None]:
        """Stop the Redis of `start_redis`, and start it again with what it holds when the context is left."""
        running, start = self._redis
        _stop(running)
        try:
            yield
        finally:
            self._redis = start(), start

    def start_consumer(self, redis_url: str) -> int:
        """Start the job that archives what that Redis carries, and return its admin port."""
        (admin_port,) = ports.choose(1)
        argv = [sys.executable, "-m", "ops", "consume", "--admin-port", str(admin_port)]
        self._environ["RECOLLECT_REDIS_URL"] = redis_url
        self.start("consumer", argv, lambda: answers(admin_port, "/readyz"))
        return admin_port

    def start_replica(self, redis_url: str) -> tuple[int, int]:
        """Start one replica of the active model, its telemetry to that Redis; return its port and admin port."""
        port, admin_port = ports.choose(2)
        argv = [sys.executable, "-m", "ops", "serve", "--slot", "0", "--host", HOST, "--port", str(port)]
        argv += ["--admin-port", str(admin_port)]
        self._environ["RECOLLECT_REDIS_URL"] = redis_url
        self.start("replica", argv, lambda: answers(admin_port, "/readyz"))
        return port, admin_port

    def start_all(self, redis_url: str, replicas: int) -> int:
        """Start a whole installation of the active model, but for its Redis, and return the balancer's port."""
        (port,) = ports.choose(1)
        argv = [sys.executable, "-m", "ops", "up", "--replicas", str(replicas), "--port", str(port)]
        self._environ["RECOLLECT_REDIS_URL"] = redis_url
        self.start("up", argv, lambda: answers(port, "/readyz") and self._all_ready())
        return port

    @property
    def home(self) -> Path:
        """The parts' RECOLLECT_HOME."""
        return self._scratch / "home"

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
            RunError: It ended, or was not ready in time; tells the last line it said.
        """
        output = self._scratch / f"{name}.out"
        with output.open("wb") as sink:
            process = subprocess.Popen(
                argv,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=self._environ,
                # After Ctrl-C there may be no time to stop it.
                preexec_fn=dies_with(os.getpid()),  # noqa: PLW1509  # it takes no lock of another thread
            )
        self._stack.callback(_stop, process)
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline_s:
                said = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise RunError(f"{name} did not come up: {said[-1] if said else 'it said nothing'}")
            time.sleep(0.02)
        return process


def answers(port: int, path: str) -> bool:
    """Say whether a GET of 127.0.0.1 is answered with 200."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def scrape(admin_port: int) -> defaultdict[str, float]:
    """Return a part's metrics, by name, summed over their labels; 0 for what it does not have.

    Raises:
        RunError: The part does not answer.
    """
    from prometheus_client.parser import text_string_to_metric_families

    try:
        with urllib.request.urlopen(f"http://{HOST}:{admin_port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError as error:
        raise RunError(f"The metrics at {HOST}:{admin_port} cannot be read: {error}") from error
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


def two_cores() -> tuple[int, int]:
    """Return the server's core and the generator's.

    Raises:
        UsageError: This process may run on one core only.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UsageError("The benchmark needs two cores, one for the server and one for the generator.")
    return cores[0], cores[1]


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Pin this process, and so all children started inside, to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
