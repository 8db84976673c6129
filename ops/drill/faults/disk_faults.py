"""Faults of disks and clocks: full, failing, slow; ahead and behind.

Invariant: undoing removes the file that fills a disk, detaches the tracer from its process, and resets the clock.
"""

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from ops.drill.faults.fault import Inject, Injection
from ops.drill.system.drilled_system import DrilledSystem, Instruments, required
from ops.drill.system.waiting import poll_until
from service.errors import RunError

_BALLAST = "drill-ballast"
_PIECE_BYTES = 1 << 20
_REFILL_EVERY_S = 0.1
_ATTACH_LIMIT_S = 5.0


def full(disk: Callable[[Instruments], Path | None]) -> Inject:
    """Return the fault that keeps a small disk full."""

    @contextlib.asynccontextmanager
    async def fill(system: DrilledSystem, _injection: Injection) -> AsyncIterator[None]:
        ballast = required(disk(required(system.instruments))) / _BALLAST
        over = asyncio.Event()
        filling = asyncio.create_task(_keep_full(ballast, over))
        try:
            yield
        finally:
            # Awaited and not cancelled, because its thread could create the file again.
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
    """Append until there is no room for another byte; without a buffer, so that each write meets the disk."""
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size_bytes = _PIECE_BYTES
        while size_bytes:
            try:
                os.write(descriptor, b"\0" * size_bytes)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size_bytes //= 2
    finally:
        os.close(descriptor)


def traced(expression: str) -> Inject:
    """Return the fault in which strace(1) tampers with a target's system calls, by `-e inject=EXPRESSION`."""

    @contextlib.asynccontextmanager
    async def tamper(system: DrilledSystem, injection: Injection) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for target in injection.targets:
                row = system.row(target)
                if row is not None and row.pid is not None:
                    await stack.enter_async_context(_strace(row.pid, expression))
            yield

    return tamper


@contextlib.asynccontextmanager
async def _strace(pid: int, expression: str) -> AsyncIterator[None]:
    calls = expression.partition(":")[0]
    tracer = await asyncio.create_subprocess_exec(
        "strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={calls}", "-e", f"inject={expression}", "-p", str(pid),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await poll_until(lambda: is_traced(pid) or tracer.returncode is not None, _ATTACH_LIMIT_S)
        if not is_traced(pid):
            raise RunError(f"strace cannot attach to process {pid}.")
        yield
    finally:
        if tracer.returncode is None:
            # SIGTERM makes it detach; killed, it might leave the process stopped.
            tracer.send_signal(signal.SIGTERM)
            await tracer.wait()


def is_traced(pid: int) -> bool:
    """Whether a tracer is attached to a process."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("TracerPid:"):
                return line.split()[1] != "0"
    return False


def clock(seconds: int) -> Inject:
    """Return the fault that sets the targets' wall clocks ahead, or behind if `seconds` is negative."""

    @contextlib.asynccontextmanager
    async def shift_clocks(system: DrilledSystem, injection: Injection) -> AsyncIterator[None]:
        clocks = required(required(system.instruments).clocks)
        for target in injection.targets:
            clocks.shift(target, seconds)
        try:
            yield
        finally:
            for target in injection.targets:
                clocks.shift(target, 0)

    return shift_clocks
