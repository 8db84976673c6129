"""Faults of Redis: refused writes, data loss, a failing link.

Invariant: undoing restores settings. It does not restore lost data, which the system itself must send again.
"""

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from ops.drill.faults.fault import Inject, Injection
from ops.drill.faults.proxy import LinkMode
from ops.drill.system import redis_commands
from ops.drill.system.drilled_system import REDIS, DrilledSystem, required
from ops.drill.system.waiting import poll_until
from service.config import from_env
from service.errors import RunError
from telemetry.stream.key_names import KeyNames

_FILES = "appendonlydir"
# Nothing listens there: a replica of it accepts no writes and gets none.
_NOWHERE = ("127.0.0.1", "1")
_RETRY_EVERY_S = 0.2
_LIMIT_S = 20.0


@contextlib.asynccontextmanager
async def out_of_memory(system: DrilledSystem, _injection: Injection) -> AsyncIterator[None]:
    """`maxmemory 1`: every write is refused with OOM."""
    async with _setting(_redis(system), "maxmemory", "1"):
        yield


@contextlib.asynccontextmanager
async def read_only(system: DrilledSystem, _injection: Injection) -> AsyncIterator[None]:
    """`REPLICAOF` nowhere: every write is refused with READONLY."""
    where = _redis(system)
    await redis_commands.call(where, "REPLICAOF", *_NOWHERE)
    try:
        yield
    finally:
        await call_until_done(where, "REPLICAOF", "NO", "ONE")


@contextlib.asynccontextmanager
async def misconf(system: DrilledSystem, _injection: Injection) -> AsyncIterator[None]:
    """Snapshots fail because their folder cannot be written: every write is refused with MISCONF."""
    where = _redis(system)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_setting(where, "save", "3600 1"))
        stack.push_async_callback(_let_snapshot_succeed, where)
        # Not even root can create a file there, so no disk has to be filled.
        await stack.enter_async_context(_setting(where, "dir", "/proc"))
        await redis_commands.call(where, "BGSAVE")
        await _wait_for_snapshot(where, "err")
        yield


async def _let_snapshot_succeed(where: int | Path) -> None:
    """Let a snapshot succeed; until then Redis refuses writes."""
    await call_until_done(where, "BGSAVE")
    await _wait_for_snapshot(where, "ok")


async def _wait_for_snapshot(where: int | Path, status: str) -> None:
    async def has_status() -> bool:
        return f"rdb_last_bgsave_status:{status}" in str(await redis_commands.call(where, "INFO", "persistence"))

    if not await poll_until(has_status, _LIMIT_S, _RETRY_EVERY_S):
        raise RunError(f"The status of Redis' last snapshot did not become {status}.")


@contextlib.asynccontextmanager
async def flush(system: DrilledSystem, _injection: Injection) -> AsyncIterator[None]:
    """`FLUSHALL`: streams, groups and watermarks are lost."""
    await redis_commands.call(_redis(system), "FLUSHALL")
    yield


@contextlib.asynccontextmanager
async def rename_stream(system: DrilledSystem, injection: Injection) -> AsyncIterator[None]:
    """One producer's stream is renamed while in use, with its consumer group."""
    where = _redis(system)
    streams = await redis_commands.call(where, "KEYS", KeyNames(from_env(system.environ).redis_namespace).events("*"))
    if not isinstance(streams, list) or not streams:
        system.problems.append("Redis holds no stream to rename")
        yield
        return
    stream = str(sorted(map(str, streams))[int(injection.draw * len(streams))])
    renamed = f"drill:{stream}"
    await redis_commands.call(where, "RENAME", stream, renamed)
    try:
        yield
    finally:
        await call_until_done(where, "DEL", renamed)


@contextlib.asynccontextmanager
async def wipe(system: DrilledSystem, _injection: Injection) -> AsyncIterator[None]:
    """The append-only file is removed and Redis killed: it restarts empty."""
    await _replace_files(system, None)
    yield


@contextlib.asynccontextmanager
async def restore_old(system: DrilledSystem, injection: Injection) -> AsyncIterator[None]:
    """The append-only file is copied, time passes, and Redis restarts from the copy: a backup, or a stale replica."""
    copy = system.redis_files / "drill-copy"
    await asyncio.to_thread(_copy, system.redis_files / _FILES, copy)
    try:
        await asyncio.sleep(injection.hold_s)
        await _replace_files(system, copy)
        yield
    finally:
        await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)


async def _replace_files(system: DrilledSystem, copy: Path | None) -> None:
    """Replace Redis' files while it is frozen, and kill it."""
    if not system.send_signal(REDIS, signal.SIGSTOP):
        system.problems.append("Redis was not running when its files were to be replaced")
        return
    files = system.redis_files / _FILES
    try:
        await asyncio.to_thread(shutil.rmtree, files)
        if copy is not None:
            await asyncio.to_thread(copy.rename, files)
    finally:
        system.send_signal(REDIS, signal.SIGKILL)


def _copy(files: Path, copy: Path) -> None:
    """Copy an append-only file in use; its last command may be cut short, as after a power cut."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(files, copy)


def link(mode: LinkMode) -> Inject:
    """Return the fault that sets the link to Redis to a mode."""

    @contextlib.asynccontextmanager
    async def set_link_mode(system: DrilledSystem, _injection: Injection) -> AsyncIterator[None]:
        proxy = required(required(system.instruments).proxy)
        await proxy.set_mode(mode)
        try:
            yield
        finally:
            await proxy.set_mode(LinkMode.OPEN)

    return set_link_mode


@contextlib.asynccontextmanager
async def _setting(where: int | Path, name: str, value: str) -> AsyncIterator[None]:
    before = await redis_commands.call(where, "CONFIG", "GET", name)
    if not isinstance(before, list) or len(before) != 2:
        raise RunError(f"Redis has no setting {name}.")
    await redis_commands.call(where, "CONFIG", "SET", name, value)
    try:
        yield
    finally:
        await call_until_done(where, "CONFIG", "SET", name, str(before[1]))


async def call_until_done(where: int | Path, *words: str) -> None:
    """Repeat a command until Redis has done it: undoing must survive a restart of Redis.

    Raises:
        RunError: It failed for 20 s.
    """
    failure: RunError | None = None

    async def done() -> bool:
        nonlocal failure
        try:
            await redis_commands.call(where, *words)
        except RunError as error:
            failure = error
            return False
        return True

    if not await poll_until(done, _LIMIT_S, _RETRY_EVERY_S) and failure is not None:
        raise failure


def _redis(system: DrilledSystem) -> int | Path:
    where: int | Path | None = system.redis()
    if where is None:
        raise AssertionError("A fault is injected only where its needs are met.")
    return where
