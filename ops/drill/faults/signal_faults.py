"""Faults made of signals: kill, freeze, reload, restart, keep down.

Invariant: undoing thaws every frozen process and stops every started one.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator

from loadbalancer import ports
from loadbalancer.supervision.probes import HttpProbe
from loadbalancer.supervision.processes import Command, spawn
from ops.drill.faults.fault import Injection
from ops.drill.system import redis_commands
from ops.drill.system.drilled_system import DrilledSystem, required
from ops.drill.system.recollect_commands import run_recollect
from ops.drill.system.waiting import poll_until, stop_child
from ops.program import PROGRAM
from telemetry.archive.archive_reader import committed_files

_KEEP_DOWN_EVERY_S = 0.02
_KILL_WHILE_STUCK_EVERY_S = 2.0
_RESTART_LIMIT_S = 90.0
_STANDBY_LIMIT_S = 30.0
_TAKEOVER_LIMIT_S = 5.0
_STOP_LIMIT_S = 12.0


@contextlib.asynccontextmanager
async def kill(system: DrilledSystem, injection: Injection) -> AsyncIterator[None]:
    """SIGKILL each target; `up` restarts it."""
    # A list, so that every target gets the signal even if the first one does not run.
    reached = [system.send_signal(target, signal.SIGKILL, injection.draw) for target in injection.targets]
    system.missed_injections += not any(reached)
    yield


@contextlib.asynccontextmanager
async def freeze(system: DrilledSystem, injection: Injection) -> AsyncIterator[None]:
    """SIGSTOP each target; its sockets stay open, and nothing answers."""
    frozen = {target: system.send_signal(target, signal.SIGSTOP, injection.draw) for target in injection.targets}
    system.missed_injections += not any(frozen.values())
    try:
        yield
    finally:
        for target, pids in frozen.items():
            thawed = set(system.send_signal(target, signal.SIGCONT, injection.draw))
            for pid in set(pids) - thawed:
                # The supervisor may have replaced the process.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def reload(system: DrilledSystem, injection: Injection) -> AsyncIterator[None]:
    """SIGHUP to the master of each target: nginx reads its configuration again and replaces its workers."""
    reached = [system.signal_leader(target, signal.SIGHUP) for target in injection.targets]
    system.missed_injections += not any(reached)
    yield


@contextlib.asynccontextmanager
async def keep_down(system: DrilledSystem, injection: Injection) -> AsyncIterator[None]:
    """SIGKILL the targets again as soon as the topology shows a process."""
    async with _killing_every(_KEEP_DOWN_EVERY_S, system, injection):
        yield


@contextlib.asynccontextmanager
async def kill_while_stuck(system: DrilledSystem, injection: Injection) -> AsyncIterator[None]:
    """Stop reading the system's output, and kill a part so often that its output exceeds the pipe."""
    output = required(system.instruments).output
    output.pause()
    try:
        async with _killing_every(_KILL_WHILE_STUCK_EVERY_S, system, injection):
            yield
    finally:
        output.resume()


@contextlib.asynccontextmanager
async def _killing_every(interval_s: float, system: DrilledSystem, injection: Injection) -> AsyncIterator[None]:
    async def kill_again() -> None:
        while True:
            for target in injection.targets:
                system.send_signal(target, signal.SIGKILL)
            await asyncio.sleep(interval_s)

    killing = asyncio.create_task(kill_again())
    try:
        yield
    finally:
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)


@contextlib.asynccontextmanager
async def rolling_restart(system: DrilledSystem, _injection: Injection) -> AsyncIterator[None]:
    """`recollect balance restart`: every replica drains and restarts, one after the other."""
    arguments = ("balance", "restart", "--json")
    try:
        result = await run_recollect(*arguments, environ=system.environ, limit_s=_RESTART_LIMIT_S)
    except TimeoutError:
        system.problems.append(f"the rolling restart took longer than {_RESTART_LIMIT_S:g} s")
    else:
        if result.status != 0:
            reason = result.stderr.decode(errors="replace").strip()[-200:]
            system.problems.append(f"the rolling restart failed: {reason}")
    yield


@contextlib.asynccontextmanager
async def freeze_until_takeover(system: DrilledSystem, injection: Injection) -> AsyncIterator[None]:
    """Freeze the consumer while a standby waits, and thaw it when the standby has taken over."""
    (admin_port,) = ports.choose(1)
    # Separate logs: two writers would rotate one file.
    logs = system.logs / "standby"
    logs.mkdir(exist_ok=True)
    environ = {**system.environ, "RECOLLECT_LOGS": str(logs)}
    redis = system.redis()
    if redis is not None:
        environ["RECOLLECT_REDIS_URL"] = redis_commands.url_of(redis)
    standby = spawn(Command((*PROGRAM, "consume", "--admin-port", str(admin_port)), environ, logs / "standby.out"))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(stop_child, standby, _STOP_LIMIT_S)
        if await poll_until(lambda: _is_alive(admin_port), _STANDBY_LIMIT_S):
            # Thawed, the first consumer must notice by itself that it has lost the lease.
            stack.push_async_callback(asyncio.sleep, 1)
            await stack.enter_async_context(freeze(system, injection))
            await _check_takeover(system)
        else:
            system.problems.append("a second consumer did not become a standby")
        yield


async def _check_takeover(system: DrilledSystem) -> None:
    """Wait until the archive grows again; a late takeover is a problem."""
    before = await asyncio.to_thread(_archived_lines, system)
    frozen_s = time.monotonic()

    async def has_grown() -> bool:
        return await asyncio.to_thread(_archived_lines, system) > before

    await poll_until(has_grown, 2 * _TAKEOVER_LIMIT_S)
    took_s = time.monotonic() - frozen_s
    if took_s > _TAKEOVER_LIMIT_S:
        system.problems.append(f"a standby took over after {took_s:.1f} s, {_TAKEOVER_LIMIT_S:g} s are promised")


async def _is_alive(admin_port: int) -> bool:
    return await HttpProbe("127.0.0.1", admin_port, "/healthz").not_ready_reason() is None


def _archived_lines(system: DrilledSystem) -> int:
    return sum(file.lines for file in committed_files(system.archive))
