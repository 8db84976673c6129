"""Starts a system for the drill: `recollect up` in a temporary folder, on free ports, as a child.

Invariant: when a context is left, none of its processes, mounts and ports remain; the caller owns the folder.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from loadbalancer import ports, redis_conf, unix_sockets
from loadbalancer.binaries import find_redis
from loadbalancer.supervision.probes import HttpProbe, RedisProbe
from loadbalancer.supervision.processes import Command, run_to_end, spawn
from ops.drill.faults.clocks import Clocks
from ops.drill.faults.proxy import Proxy
from ops.drill.system import redis_commands
from ops.drill.system.drilled_system import CONSUMER, REDIS, DrilledSystem, Instruments
from ops.drill.system.needs import Need
from ops.drill.system.output_pipe import OutputPipe
from ops.drill.system.waiting import poll_until, stop_child
from ops.load.population import Target
from ops.program import PROGRAM
from service.errors import RunError

_START_LIMIT_S = 300.0
_STOP_LIMIT_S = 40.0
_MOUNT_TIMEOUT_S = 10.0
_SPOOL_DISK_BYTES = 512 * 1024 * 1024
_LOG_DISK_BYTES = 16 * 1024 * 1024
# The write-ahead log reserves whole segments: with the default size a full disk would be noticed minutes later.
_SEGMENT_BYTES = 128 * 1024
# These would connect the system to another one, or change its listener: the drill needs loopback without keys and TLS.
_NOT_INHERITED = frozenset(
    {
        "RECOLLECT_HOME",
        "RECOLLECT_LOGS",
        "RECOLLECT_PORT",
        "RECOLLECT_REDIS_URL",
        "RECOLLECT_REDIS_NAMESPACE",
        "RECOLLECT_BALANCER_HOST",
        "RECOLLECT_HOST",
        "RECOLLECT_KEYS_REQUIRED",
        "RECOLLECT_TLS_CERT",
        "RECOLLECT_TLS_KEY",
    }
)


@contextlib.asynccontextmanager
async def default_system(folder: Path, data: str | None, replicas: int) -> AsyncIterator[tuple[DrilledSystem, Target]]:
    """Run an installation with default settings in an empty folder; `data` is the option `--data` of `up`.

    Raises:
        RunError: It did not come up.
    """
    async with contextlib.AsyncExitStack() as stack:
        paths = OwnPaths(folder)
        environ = child_environ(paths, os.environ)
        yield await _start(stack, paths, data, replicas, environ, Instruments(_output(stack, paths)))


@contextlib.asynccontextmanager
async def instrumented_system(
    folder: Path, data: str | None, replicas: int
) -> AsyncIterator[tuple[DrilledSystem, Target]]:
    """Run an installation with a proxy before a Redis of the drill, small disks, and clocks that can be set.

    The folder must be empty; `data` is the option `--data` of `up`.

    Raises:
        RunError: It did not come up, or there is no Redis.
    """
    async with contextlib.AsyncExitStack() as stack:
        paths = OwnPaths(folder)
        lacking: dict[Need, str] = {}
        environ = child_environ(paths, os.environ) | {"RECOLLECT_SPOOL_SEGMENT_BYTES": str(_SEGMENT_BYTES)}
        spool_disk = _mount(stack, paths.home / "spool", _SPOOL_DISK_BYTES, Need.SPOOL_DISK, lacking)
        log_disk = _mount(stack, paths.logs, _LOG_DISK_BYTES, Need.LOG_DISK, lacking)
        clocks: Clocks | None = None
        try:
            clocks = Clocks(paths.clocks, [REDIS, CONSUMER, *(f"replica-{slot}" for slot in range(replicas))])
            environ |= clocks.environ
        except RunError as error:
            lacking[Need.CLOCKS] = str(error).rstrip(".")
        (proxy_port,) = ports.choose(1)
        socket = await _start_redis(stack, paths, environ)
        proxy = Proxy(proxy_port, socket)
        stack.push_async_callback(proxy.close)
        await proxy.start()
        environ["RECOLLECT_REDIS_URL"] = redis_commands.url_of(proxy_port)
        instruments = Instruments(_output(stack, paths), socket, proxy, clocks, spool_disk, log_disk, lacking)
        yield await _start(stack, paths, data, replicas, environ, instruments)


class OwnPaths:
    """The folders of one system, created here."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "var"
        self.logs = folder / "logs"
        # Outside of the logs, whose disk may be full.
        self.output = folder / "up.out"
        self.pipe = folder / "up.pipe"
        self.clocks = folder / "clocks"
        # Outside of the home, whose run/ belongs to `up`.
        self.redis = folder / "redis"
        for path in (self.home, self.logs, self.clocks, self.home / "spool", self.home / "redis"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)


def child_environ(paths: OwnPaths, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the system: the given one without settings that would connect it elsewhere."""
    kept = {name: value for name, value in environ.items() if name not in _NOT_INHERITED}
    return {**kept, "RECOLLECT_HOME": str(paths.home), "RECOLLECT_LOGS": str(paths.logs)}


def _output(stack: contextlib.AsyncExitStack, paths: OwnPaths) -> OutputPipe:
    return stack.enter_context(OutputPipe(paths.pipe, paths.output))


def _mount(
    stack: contextlib.AsyncExitStack, path: Path, size_bytes: int, need: Need, lacking: dict[Need, str]
) -> Path | None:
    """Mount a small disk in memory, or add the reason to `lacking`."""
    argv = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "recollect-drill", str(path)]
    try:
        status, output = run_to_end(argv, _MOUNT_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        status, output = 1, str(error)
    if status != 0:
        lacking[need] = f"a small disk cannot be mounted here: {output.strip()[-120:]}"
        return None
    # Lazily: a process that exits slowly must not keep the mount.
    stack.callback(run_to_end, ["umount", "-l", str(path)], _MOUNT_TIMEOUT_S)
    return path


async def _start_redis(stack: contextlib.AsyncExitStack, paths: OwnPaths, environ: Mapping[str, str]) -> Path:
    """Start a Redis as `up` does, but with a folder that CONFIG SET may change; return its socket."""
    config = paths.home / "redis" / "redis.conf"
    stack.callback(unix_sockets.remove, paths.redis)
    socket = unix_sockets.choose_path(paths.redis, "redis.sock")
    config.write_text(redis_conf.render(config.parent, socket) + "enable-protected-configs local\n", encoding="utf-8")
    configured = os.environ.get("RECOLLECT_REDIS_SERVER")
    binary = await asyncio.to_thread(find_redis, None if configured is None else Path(configured))
    output = config.parent / f"{REDIS}.out"
    child = spawn(Command((str(binary.path), str(config)), environ, output))
    stack.push_async_callback(stop_child, child, _STOP_LIMIT_S)
    probe = RedisProbe(socket)

    async def answers() -> bool:
        return child.exited() or await probe.not_ready_reason() is None

    if not await poll_until(answers, _START_LIMIT_S) or child.exited():
        raise RunError(f"Redis did not start; see {output}.")
    return socket


async def _start(
    stack: contextlib.AsyncExitStack,
    paths: OwnPaths,
    data: str | None,
    replicas: int,
    environ: dict[str, str],
    instruments: Instruments,
) -> tuple[DrilledSystem, Target]:
    (port,) = ports.choose(1)
    argv = [*PROGRAM, "up", "--replicas", str(replicas), "--port", str(port)]
    argv += [] if data is None else ["--data", data]
    child = spawn(Command(tuple(argv), environ, instruments.output.pipe))
    stack.push_async_callback(stop_child, child, _STOP_LIMIT_S)
    # Commands about this system use the true time.
    without_clocks = {name: value for name, value in environ.items() if name != "LD_PRELOAD"}
    system = DrilledSystem(paths.home, paths.logs, without_clocks, instruments)
    probe = HttpProbe("127.0.0.1", port, "/readyz")

    async def came_up() -> bool:
        return child.exited() or (system.ready() and await probe.not_ready_reason() is None)

    if not await poll_until(came_up, _START_LIMIT_S) or child.exited():
        raise RunError(f"`recollect up` did not come up; its last output: {instruments.output.last_line()}.")
    return system, Target("127.0.0.1", port, "")
