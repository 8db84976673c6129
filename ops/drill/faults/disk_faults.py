"""Faults of disks and clocks: full, failing, slow; ahead and behind.

The invariant: what fills a disk is removed, what traces a process lets go, and a moved clock is put back.
"""

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from ops.drill.faults.fault import Do, Strike
from ops.drill.system import Prepared, System, have
from ops.drill.waiting import until
from service.errors import RunError

_BALLAST = "drill-ballast"
_PIECE_BYTES = 1 << 20
_REFILL_EVERY_S = 0.1
_ATTACH_LIMIT_S = 5.0


def full(disk: Callable[[Prepared], Path | None]) -> Do:
    """Return the fault that keeps a small disk full."""

    @contextlib.asynccontextmanager
    async def fill(system: System, _strike: Strike) -> AsyncIterator[None]:
        ballast = have(disk(have(system.prepared))) / _BALLAST
        over = asyncio.Event()
        filling = asyncio.create_task(_keep_full(ballast, over))
        try:
            yield
        finally:
            # Waited for, not cancelled: a thread that was left behind might make the file again.
            over.set()
            await filling
            ballast.unlink(missing_ok=True)

    return fill


async def _keep_full(ballast: Path, over: asyncio.Event) -> None:
    while not over.is_set():
        await asyncio.to_thread(_fill, ballast)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _REFILL_EVERY_S)


def _fill(ballast: Path) -> None:
    """Append until there is no room for another byte."""
    with contextlib.closing(_Raw(ballast)) as file:
        size_bytes = _PIECE_BYTES
        while size_bytes:
            try:
                file.append(b"\0" * size_bytes)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size_bytes //= 2


class _Raw:
    """A file written without a buffer, so that each write meets the disk."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, data: bytes) -> None:
        os.write(self._fd, data)

    def close(self) -> None:
        os.close(self._fd)


def traced(injection: str) -> Do:
    """Return the fault that has strace(1) tamper with a target's calls.

    Args:
        injection: What follows `-e inject=`.
    """

    @contextlib.asynccontextmanager
    async def tamper(system: System, strike: Strike) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for target in strike.targets:
                row = system.row(target)
                if row is not None and row.pid is not None:
                    await stack.enter_async_context(_strace(row.pid, injection))
            yield

    return tamper


@contextlib.asynccontextmanager
async def _strace(pid: int, injection: str) -> AsyncIterator[None]:
    calls = injection.partition(":")[0]
    tracer = await asyncio.create_subprocess_exec(
        "strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={calls}", "-e", f"inject={injection}", "-p", str(pid),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await until(lambda: _is_traced(pid) or tracer.returncode is not None, _ATTACH_LIMIT_S)
        if not _is_traced(pid):
            raise RunError(f"strace cannot attach to process {pid}.")
        yield
    finally:
        if tracer.returncode is None:
            # It lets go of the process before it ends; killed, it might leave it stopped.
            tracer.send_signal(signal.SIGTERM)
            await tracer.wait()


def _is_traced(pid: int) -> bool:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("TracerPid:"):
                return line.split()[1] != "0"
    return False


def clock(seconds: int) -> Do:
    """Return the fault that moves the targets' wall clocks, and back."""

    @contextlib.asynccontextmanager
    async def move(system: System, strike: Strike) -> AsyncIterator[None]:
        clocks = have(have(system.prepared).clocks)
        for target in strike.targets:
            clocks.shift(target, seconds)
        try:
            yield
        finally:
            for target in strike.targets:
                clocks.shift(target, 0)

    return move
