"""Faults made of signals: kill, freeze, reload, restart, hold down.

The invariant: whatever was frozen is thawed, and whatever was started is stopped, when the fault's context is left.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator

from loadbalancer import ports, redis_conf
from loadbalancer.probes import HttpProbe
from loadbalancer.processes import Command, spawn
from ops.drill.faults.fault import Strike
from ops.drill.recollect_program import recollect
from ops.drill.system import System, have
from ops.drill.waiting import end, until
from ops.program import PROGRAM
from telemetry.archive.archive_reader import committed_files

_HELD_EVERY_S = 0.02
_RESTART_LIMIT_S = 90.0
_STANDBY_LIMIT_S = 30.0
_TAKEOVER_LIMIT_S = 5.0
_STOP_LIMIT_S = 12.0


@contextlib.asynccontextmanager
async def kill(system: System, strike: Strike) -> AsyncIterator[None]:
    """SIGKILL each target at once; `up` brings it back."""
    # All are reached, even if the first one does not run at the moment.
    reached = [system.send(target, signal.SIGKILL, strike.draw) for target in strike.targets]
    system.missed += not any(reached)
    yield


@contextlib.asynccontextmanager
async def freeze(system: System, strike: Strike) -> AsyncIterator[None]:
    """SIGSTOP each target; its sockets stay open, and nothing answers."""
    frozen = {target: system.send(target, signal.SIGSTOP, strike.draw) for target in strike.targets}
    system.missed += not any(frozen.values())
    try:
        yield
    finally:
        for target, pids in frozen.items():
            thawed = set(system.send(target, signal.SIGCONT, strike.draw))
            for pid in set(pids) - thawed:
                # The supervisor may have replaced it meanwhile; then there is nobody to thaw.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def reload(system: System, strike: Strike) -> AsyncIterator[None]:
    """SIGHUP to the master of each target: nginx reads its configuration again and replaces its workers."""
    reached = [system.lead(target, signal.SIGHUP) for target in strike.targets]
    system.missed += not any(reached)
    yield


@contextlib.asynccontextmanager
async def hold_down(system: System, strike: Strike) -> AsyncIterator[None]:
    """SIGKILL the targets again and again, as soon as the topology shows a process."""

    async def hold() -> None:
        while True:
            for target in strike.targets:
                system.send(target, signal.SIGKILL)
            await asyncio.sleep(_HELD_EVERY_S)

    holding = asyncio.create_task(hold())
    try:
        yield
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


@contextlib.asynccontextmanager
async def restart_in_turn(system: System, _strike: Strike) -> AsyncIterator[None]:
    """`recollect balance restart`: every replica drains and comes back, one after the other."""
    try:
        ended = await recollect("balance", "restart", "--json", environ=system.environ, limit_s=_RESTART_LIMIT_S)
    except TimeoutError:
        system.complain(f"the rolling restart was not over within {_RESTART_LIMIT_S:g} s")
    else:
        if ended.status != 0:
            system.complain(f"the rolling restart failed: {ended.said.decode(errors='replace').strip()[-200:]}")
    yield


@contextlib.asynccontextmanager
async def kill_while_stuck(system: System, strike: Strike) -> AsyncIterator[None]:
    """Stop reading what the system prints, and kill a part so often that it has more to say than a pipe holds."""
    output = have(system.prepared).output
    output.rest()
    blows = asyncio.create_task(_blows(system, strike))
    try:
        yield
    finally:
        blows.cancel()
        await asyncio.gather(blows, return_exceptions=True)
        output.go_on()


async def _blows(system: System, strike: Strike) -> None:
    for _ in range(max(int(strike.hold_s / 2), 1)):
        for target in strike.targets:
            system.send(target, signal.SIGKILL)
        await asyncio.sleep(2)


@contextlib.asynccontextmanager
async def zombie(system: System, strike: Strike) -> AsyncIterator[None]:
    """Freeze the consumer while a second one stands by, and thaw it when that has taken over."""
    (admin_port,) = ports.choose(1)
    # A log of its own: two writers would rotate one file.
    logs = system.logs / "standby"
    logs.mkdir(exist_ok=True)
    environ = {**system.environ, "RECOLLECT_LOGS": str(logs)}
    redis = system.redis()
    if redis is not None:
        environ["RECOLLECT_REDIS_URL"] = (
            f"redis://127.0.0.1:{redis}/0" if isinstance(redis, int) else redis_conf.url(redis)
        )
    standby = spawn(Command((*PROGRAM, "consume", "--admin-port", str(admin_port)), environ, logs / "standby.out"))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(end, standby, _STOP_LIMIT_S)
        if await until(lambda: _answers(admin_port), _STANDBY_LIMIT_S):
            # Thawed, the first consumer must find by itself that it has lost the lease.
            stack.push_async_callback(asyncio.sleep, 1)
            await stack.enter_async_context(freeze(system, strike))
            await _see_takeover(system)
        else:
            system.complain("a second consumer did not get ready to stand by")
        yield


async def _see_takeover(system: System) -> None:
    """Wait until the archive grows again."""
    before = await asyncio.to_thread(_archived, system)
    frozen_s = time.monotonic()

    async def has_grown() -> bool:
        return await asyncio.to_thread(_archived, system) > before

    await until(has_grown, 2 * _TAKEOVER_LIMIT_S)
    took_s = time.monotonic() - frozen_s
    if took_s > _TAKEOVER_LIMIT_S:
        system.complain(f"a standby took {took_s:.1f} s to take over, {_TAKEOVER_LIMIT_S:g} s are promised")


async def _answers(admin_port: int) -> bool:
    return await HttpProbe("127.0.0.1", admin_port, "/healthz").complaint() is None


def _archived(system: System) -> int:
    return sum(file.lines for file in committed_files(system.archive))
