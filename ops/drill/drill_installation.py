"""A system of the drill's own: `recollect up` in a folder that is thrown away, on free ports, as a child.

The invariant: when the context is left, no process, mount or port of it remains; the folder remains if it is asked for.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from loadbalancer import ports, redis_conf, unix_sockets
from loadbalancer.binaries import find_redis
from loadbalancer.probes import HttpProbe, RedisProbe
from loadbalancer.processes import Command, run_to_end, spawn
from ops.drill.faults.clocks import Clocks
from ops.drill.faults.proxy import Proxy
from ops.drill.needs import Need
from ops.drill.output import Output
from ops.drill.system import CONSUMER, REDIS, Prepared, System
from ops.drill.waiting import end, until
from ops.load.population import Target
from ops.program import PROGRAM
from service.errors import RunError

_START_LIMIT_S = 300.0
_STOP_LIMIT_S = 40.0
_MOUNT_TIMEOUT_S = 10.0
_SPOOL_DISK_BYTES = 512 * 1024 * 1024
_LOG_DISK_BYTES = 16 * 1024 * 1024
# The log takes room by whole segments: with those of a usual size a full disk would be felt only minutes later.
_SEGMENT_BYTES = 128 * 1024
# These would point a system of the drill's own at another one, or let it listen otherwise than where the drill asks: on
# this machine, without keys and without TLS.
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
async def as_shipped(folder: Path, data: str | None, replicas: int) -> AsyncIterator[tuple[System, Target]]:
    """Run an installation as everybody runs it.

    Args:
        folder: An empty one.
        data: What `up --data` gets; None for its default.
        replicas: How many.

    Raises:
        RunError: It did not come up.
    """
    async with contextlib.AsyncExitStack() as stack:
        paths = _Paths(folder)
        yield await _run(stack, paths, data, replicas, _environ(paths), Prepared(_output(stack, paths)))


@contextlib.asynccontextmanager
async def prepared(folder: Path, data: str | None, replicas: int) -> AsyncIterator[tuple[System, Target]]:
    """Run an installation between parts of the drill: a proxy to a Redis of its own, small disks, clocks to be set.

    Args:
        folder: An empty one.
        data: What `up --data` gets; None for its default.
        replicas: How many.

    Raises:
        RunError: It did not come up, or there is no Redis to run.
    """
    async with contextlib.AsyncExitStack() as stack:
        paths = _Paths(folder)
        lacking: dict[Need, str] = {}
        environ = _environ(paths) | {"RECOLLECT_SPOOL_SEGMENT_BYTES": str(_SEGMENT_BYTES)}
        disks = {
            need: _mounted(stack, path, size_bytes, need, lacking)
            for need, path, size_bytes in (
                (Need.SPOOL_DISK, paths.home / "spool", _SPOOL_DISK_BYTES),
                (Need.LOG_DISK, paths.logs, _LOG_DISK_BYTES),
            )
        }
        clocks: Clocks | None = None
        try:
            names = [REDIS, CONSUMER, *(f"replica-{slot}" for slot in range(replicas))]
            clocks = Clocks(paths.clocks, names)
            environ |= clocks.environ
        except RunError as error:
            lacking[Need.CLOCKS] = str(error).rstrip(".")
        (proxy_port,) = ports.choose(1)
        socket = await _run_redis(stack, paths, environ)
        proxy = Proxy(proxy_port, socket)
        stack.push_async_callback(proxy.close)
        await proxy.start()
        environ["RECOLLECT_REDIS_URL"] = f"redis://127.0.0.1:{proxy_port}/0"
        round_it = Prepared(
            _output(stack, paths),
            socket,
            proxy,
            clocks,
            disks[Need.SPOOL_DISK],
            disks[Need.LOG_DISK],
            lacking,
        )
        yield await _run(stack, paths, data, replicas, environ, round_it)


class _Paths:
    """The folders of one installation; made here."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "var"
        self.logs = folder / "logs"
        # Outside the folder of logs, whose disk may be full.
        self.said = folder / "up.out"
        self.pipe = folder / "up.pipe"
        self.clocks = folder / "clocks"
        # Not in the home, whose run/ belongs to `up`.
        self.redis = folder / "redis"
        for path in (self.home, self.logs, self.clocks, self.home / "spool", self.home / "redis"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _environ(paths: _Paths) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    return {**kept, "RECOLLECT_HOME": str(paths.home), "RECOLLECT_LOGS": str(paths.logs)}


def _output(stack: contextlib.AsyncExitStack, paths: _Paths) -> Output:
    return stack.enter_context(Output(paths.pipe, paths.said))


def _mounted(
    stack: contextlib.AsyncExitStack, path: Path, size_bytes: int, need: Need, lacking: dict[Need, str]
) -> Path | None:
    """Mount a small disk in memory, or say why there is none."""
    argv = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "recollect-drill", str(path)]
    try:
        status, said = run_to_end(argv, _MOUNT_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        status, said = 1, str(error)
    if status != 0:
        lacking[need] = f"a small disk cannot be mounted here: {said.strip()[-120:]}"
        return None
    # Lazily: a process that dies slowly must not leave the mount behind.
    stack.callback(run_to_end, ["umount", "-l", str(path)], _MOUNT_TIMEOUT_S)
    return path


async def _run_redis(stack: contextlib.AsyncExitStack, paths: _Paths, environ: Mapping[str, str]) -> Path:
    """Start a Redis as `up` would, that lets its folder be changed; returns its socket."""
    config = paths.home / "redis" / "redis.conf"
    stack.callback(unix_sockets.remove, paths.redis)
    socket = unix_sockets.place(paths.redis, "redis.sock")
    config.write_text(redis_conf.render(config.parent, socket) + "enable-protected-configs local\n", encoding="utf-8")
    configured = os.environ.get("RECOLLECT_REDIS_SERVER")
    binary = await asyncio.to_thread(find_redis, None if configured is None else Path(configured))
    output = config.parent / f"{REDIS}.out"
    child = spawn(Command((str(binary.path), str(config)), environ, output))
    stack.push_async_callback(end, child, _STOP_LIMIT_S)
    probe = RedisProbe(socket)

    async def answers() -> bool:
        return child.exited() or await probe.complaint() is None

    if not await until(answers, _START_LIMIT_S) or child.exited():
        raise RunError(f"Redis did not start; see {output}.")
    return socket


async def _run(
    stack: contextlib.AsyncExitStack,
    paths: _Paths,
    data: str | None,
    replicas: int,
    environ: dict[str, str],
    round_it: Prepared,
) -> tuple[System, Target]:
    (port,) = ports.choose(1)
    argv = [*PROGRAM, "up", "--replicas", str(replicas), "--port", str(port)]
    argv += [] if data is None else ["--data", data]
    child = spawn(Command(tuple(argv), environ, round_it.output.pipe))
    stack.push_async_callback(end, child, _STOP_LIMIT_S)
    # Commands about this installation need no clock of their own.
    without_clocks = {name: value for name, value in environ.items() if name != "LD_PRELOAD"}
    system = System(paths.home, paths.logs, without_clocks, round_it)
    probe = HttpProbe("127.0.0.1", port, "/readyz")

    async def came_up() -> bool:
        return child.exited() or (system.ready() and await probe.complaint() is None)

    if not await until(came_up, _START_LIMIT_S) or child.exited():
        raise RunError(f"`recollect up` did not come up; the last it said was: {round_it.output.last_words()}.")
    return system, Target("127.0.0.1", port, "")
