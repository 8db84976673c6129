"""Faults of Redis: it refuses, it forgets, its link fails.

The invariant: settings are put back to what they were before. What Redis forgot stays forgotten: that the system gets
it back is the promise.
"""

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from ops.drill import redis_commands
from ops.drill.faults.fault import Do, Strike
from ops.drill.faults.proxy import Mode
from ops.drill.system import REDIS, System, have
from ops.drill.waiting import until
from service.config import from_env
from service.errors import RunError
from telemetry.stream.key_names import Keys

_FILES = "appendonlydir"
# Nobody listens there: a replica of it accepts no writes and gets none.
_NOWHERE = ("127.0.0.1", "1")
_TRY_EVERY_S = 0.2
_LIMIT_S = 20.0


@contextlib.asynccontextmanager
async def out_of_memory(system: System, _strike: Strike) -> AsyncIterator[None]:
    """`maxmemory 1`: every write is refused with OOM."""
    async with _setting(_redis(system), "maxmemory", "1"):
        yield


@contextlib.asynccontextmanager
async def read_only(system: System, _strike: Strike) -> AsyncIterator[None]:
    """`REPLICAOF` nowhere: every write is refused with READONLY."""
    where = _redis(system)
    await redis_commands.call(where, "REPLICAOF", *_NOWHERE)
    try:
        yield
    finally:
        await _until_done(where, "REPLICAOF", "NO", "ONE")


@contextlib.asynccontextmanager
async def misconf(system: System, _strike: Strike) -> AsyncIterator[None]:
    """Snapshots fail because their folder cannot be written: every write is refused with MISCONF."""
    where = _redis(system)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_setting(where, "save", "3600 1"))
        stack.push_async_callback(_save_works, where)
        # Not even root can make a file there, and no real disk has to be filled.
        await stack.enter_async_context(_setting(where, "dir", "/proc"))
        await redis_commands.call(where, "BGSAVE")
        await _see_save(where, "err")
        yield


async def _save_works(where: int | Path) -> None:
    """Let Redis see that snapshots work again; until then it refuses writes."""
    await _until_done(where, "BGSAVE")
    await _see_save(where, "ok")


async def _see_save(where: int | Path, status: str) -> None:
    async def seen() -> bool:
        return f"rdb_last_bgsave_status:{status}" in str(await redis_commands.call(where, "INFO", "persistence"))

    if not await until(seen, _LIMIT_S, _TRY_EVERY_S):
        raise RunError(f"Redis did not come to say that its last snapshot's status is {status}.")


@contextlib.asynccontextmanager
async def flush(system: System, _strike: Strike) -> AsyncIterator[None]:
    """`FLUSHALL`: streams, groups and watermarks are gone."""
    await redis_commands.call(_redis(system), "FLUSHALL")
    yield


@contextlib.asynccontextmanager
async def rename_stream(system: System, strike: Strike) -> AsyncIterator[None]:
    """One producer's stream is renamed away under everybody's hands, with its consumer group."""
    where = _redis(system)
    streams = await redis_commands.call(where, "KEYS", Keys(from_env(system.environ).redis_namespace).events("*"))
    if not isinstance(streams, list) or not streams:
        system.complain("Redis holds no stream to rename")
        yield
        return
    stream = str(sorted(map(str, streams))[int(strike.draw * len(streams))])
    aside = f"drill:{stream}"
    await redis_commands.call(where, "RENAME", stream, aside)
    try:
        yield
    finally:
        await _until_done(where, "DEL", aside)


@contextlib.asynccontextmanager
async def wipe(system: System, _strike: Strike) -> AsyncIterator[None]:
    """The append-only file is removed and Redis killed: it comes back with nothing."""
    await _replace_files(system, None)
    yield


@contextlib.asynccontextmanager
async def restore_old(system: System, strike: Strike) -> AsyncIterator[None]:
    """The append-only file is copied, time passes, and Redis comes back from the copy: a backup, or a stale replica."""
    copy = system.redis_files / "drill-copy"
    await asyncio.to_thread(_copy, system.redis_files / _FILES, copy)
    try:
        await asyncio.sleep(strike.hold_s)
        await _replace_files(system, copy)
        yield
    finally:
        await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)


async def _replace_files(system: System, copy: Path | None) -> None:
    """Put other files in the place of Redis' own while it is frozen, and kill it."""
    if not system.send(REDIS, signal.SIGSTOP):
        system.complain("Redis was not running when its files were to be replaced")
        return
    files = system.redis_files / _FILES
    try:
        await asyncio.to_thread(shutil.rmtree, files)
        if copy is not None:
            await asyncio.to_thread(copy.rename, files)
    finally:
        system.send(REDIS, signal.SIGKILL)


def _copy(files: Path, copy: Path) -> None:
    """Copy an append-only file that is being written; its last command may be cut short, as after a power cut."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(files, copy)


def link(mode: Mode) -> Do:
    """Return the fault that gives the link to Redis another mode."""

    @contextlib.asynccontextmanager
    async def bend(system: System, _strike: Strike) -> AsyncIterator[None]:
        proxy = have(have(system.prepared).proxy)
        await proxy.set(mode)
        try:
            yield
        finally:
            await proxy.set(Mode.OPEN)

    return bend


@contextlib.asynccontextmanager
async def _setting(where: int | Path, name: str, value: str) -> AsyncIterator[None]:
    before = await redis_commands.call(where, "CONFIG", "GET", name)
    if not isinstance(before, list) or len(before) != 2:
        raise RunError(f"Redis has no setting {name}.")
    await redis_commands.call(where, "CONFIG", "SET", name, value)
    try:
        yield
    finally:
        await _until_done(where, "CONFIG", "SET", name, str(before[1]))


async def _until_done(where: int | Path, *words: str) -> None:
    """Send a command again and again until Redis has done it: an undoing must not be lost to a restart."""
    failure: RunError | None = None

    async def done() -> bool:
        nonlocal failure
        try:
            await redis_commands.call(where, *words)
        except RunError as error:
            failure = error
            return False
        return True

    if not await until(done, _LIMIT_S, _TRY_EVERY_S) and failure is not None:
        raise failure


def _redis(system: System) -> int | Path:
    where: int | Path | None = system.redis()
    if where is None:
        raise AssertionError("a fault is done only where its needs are met")
    return where
