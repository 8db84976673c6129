"""Runs the parts: observes them, asks `supervisor.step`, performs its actions, and publishes run/topology.json.

Invariants:

- However `run` ends, no process that it started is left.
- The event loop waits for a disk only to start a process. Other file access, /proc included, runs in a `DiskWorker`.
"""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from loadbalancer.errors import PartFailed
from loadbalancer.nginx.certificate_watch import CertificateWatch
from loadbalancer.nginx.remote_watch import RemoteWatch
from loadbalancer.part_kinds import Part
from loadbalancer.roster import Row
from loadbalancer.supervision import foreign_listeners, supervisor
from loadbalancer.supervision.disk_worker import DiskWorker
from loadbalancer.supervision.probes import HttpProbe, until_ready
from loadbalancer.supervision.processes import Child, reap_orphans, spawn
from loadbalancer.supervision.roster_writer import RosterWriter
from loadbalancer.supervision.spare_pool import SparePool
from loadbalancer.supervision.supervisor import (
    Action,
    Exited,
    FleetState,
    Kill,
    LivenessOk,
    LivenessTimeout,
    Mode,
    NotReady,
    Observation,
    Phase,
    Ready,
    RestartRequested,
    Start,
    Stop,
    StopRequested,
    Tick,
)

# A closed terminal sends SIGHUP.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RESTART_SIGNAL = signal.SIGUSR1
RELOAD_SIGNAL = signal.SIGUSR2

_HOUSEKEEPING_EVERY_S = 10.0
_ROSTER_REMOVAL_TIMEOUT_S = 2.0
# Probes overlap, so that a frozen part has timed out twice after 1.25 to 1.5 s. A client that waits 2 s for an answer
# still has time for its second attempt.
_LIVENESS_EVERY_S = 0.25


class Fleet:
    """All parts of one home directory. Create and run it in the main thread, which receives the signals.

    Args:
        home: The home directory; its lock is held by the caller.
        parts: What to run, in start order.
        on_ready: Called once in a thread of its own, when every part has been ready.
        notify: Called with each sentence for the operator.
        spares: Preloaded processes that replace Python parts that exited.
        remote: Watches the addresses of replicas of other machines; None if there are none.
    """

    def __init__(
        self,
        home: Path,
        parts: Sequence[Part],
        *,
        on_ready: Callable[[], None],
        notify: Callable[[str], None],
        spares: SparePool,
        remote: RemoteWatch | None = None,
    ) -> None:
        self._home = home
        self._parts = {part.name: part for part in parts}
        self._on_ready = on_ready
        self._notify = notify
        self._spares = spares
        self._remote = remote
        self._state = supervisor.initial(tuple(parts), time.monotonic())
        self._children: dict[str, Child] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._observations: asyncio.Queue[Observation] = asyncio.Queue()
        nginx = next((part.command for part in parts if part.command.reload_files), None)
        self._certificates = None if nginx is None else CertificateWatch(nginx)
        self._foreign: set[tuple[str, int]] = set()
        self._output_bytes = {part.name: _size(part.command.output) for part in parts}
        self._exit_causes: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Fleet in {self._home}: {self._state!r}>"

    def request_stop(self) -> None:
        """Stop everything in order; a second request asks for a fast stop."""
        self._observations.put_nowait(StopRequested())

    def request_restart(self) -> None:
        """Restart the replicas one after the other."""
        self._observations.put_nowait(RestartRequested())

    def reload(self) -> None:
        """Have every nginx read its files again; connected clients stay connected."""
        for child in self._children.values():
            child.reload()

    async def run(self) -> None:
        """Start everything, keep it running, and return when all of it has stopped on request.

        Raises:
            PartFailed: A part did not come up at the first start; the others were stopped.
        """
        loop = asyncio.get_running_loop()
        self._disk = DiskWorker()
        self._roster = RosterWriter(self._home, self._disk, self._notify)
        # One signal for all children needs no descriptor for each and works on every kernel.
        loop.add_signal_handler(signal.SIGCHLD, self._reap_exited)
        self._tasks.append(asyncio.create_task(self._run_housekeeping(), name="housekeeping"))
        if self._certificates is not None:
            watching = self._certificates.run(self._disk, self.reload, self._notify)
            self._tasks.append(asyncio.create_task(watching, name="certificates"))
        if self._remote is not None:
            resolving = self._remote.run(self.reload, self._notify)
            self._tasks.append(asyncio.create_task(resolving, name="remote replicas"))
        try:
            await self._supervise()
        finally:
            loop.remove_signal_handler(signal.SIGCHLD)
            tasks = [*self._tasks, *self._probes.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for child in self._children.values():
                child.reap()
            self._spares.discard()
            await self._roster.remove(_ROSTER_REMOVAL_TIMEOUT_S)
        if self._state.failed is not None:
            raise PartFailed(self._failure_of(self._state.failed))

    async def _supervise(self) -> None:
        parts = tuple(self._parts.values())
        self._process(Tick())
        while self._state.mode is not Mode.ENDED:
            wake_s = supervisor.next_wake_s(parts, self._state)
            timeout_s = None if wake_s is None else max(0.0, wake_s - time.monotonic())
            try:
                observation = await asyncio.wait_for(self._observations.get(), timeout_s)
            except TimeoutError:
                observation = Tick()
            self._process(observation)

    def _process(self, observation: Observation) -> None:
        before = self._state
        self._state, actions = supervisor.step(tuple(self._parts.values()), before, observation, time.monotonic())
        self._report_changes(before, self._state)
        for action in actions:
            self._perform(action)
        self._replenish_spares()
        self._roster.publish([self._row(part) for part in self._parts.values()])
        if self._state.came_up and not before.came_up:
            self._tasks.append(asyncio.create_task(self._announce_ready(), name="on-ready"))

    def _perform(self, action: Action) -> None:
        # Without a child the part has just exited, and that observation is in the queue.
        child = self._children.get(action.name)
        match action:
            case Start(name):
                self._start(self._parts[name])
            case Stop() if child is not None:
                child.stop()
            case Kill(name) if child is not None:
                frozen = self._state.parts[name].phase is Phase.READY
                self._notify(f"{name} {'does not answer' if frozen else 'takes too long'} and is killed.")
                child.kill()
            case _:
                pass

    def _start(self, part: Part) -> None:
        try:
            self._children[part.name] = self._spares.become(part.command) or spawn(part.command)
        except OSError as error:
            self._notify(f"{part.name} cannot be started: {error}.")
            self._observations.put_nowait(Exited(part.name))
            return
        self._probes[part.name] = asyncio.create_task(self._probe(part), name=f"probe {part.name}")

    async def _probe(self, part: Part) -> None:
        await until_ready(part.probe, lambda reason: self._observations.put_nowait(NotReady(part.name, reason)))
        self._observations.put_nowait(Ready(part.name))
        if part.watch is not None:
            async with asyncio.TaskGroup() as probes:
                while True:
                    probes.create_task(self._probe_liveness(part.name, part.watch))
                    await asyncio.sleep(_LIVENESS_EVERY_S)

    async def _probe_liveness(self, name: str, probe: HttpProbe) -> None:
        began_s = time.monotonic()
        timed_out = await probe.times_out()
        waited_s = time.monotonic() - began_s
        self._observations.put_nowait(LivenessTimeout(name, waited_s) if timed_out else LivenessOk(name))

    def _replenish_spares(self) -> None:
        if self._state.mode is not Mode.RUNNING:
            self._spares.discard()
            return
        python_parts = [part for part in self._parts.values() if part.command.arguments]
        # Loading a spare must not slow the start of a part.
        if python_parts and all(self._state.parts[part.name].phase is Phase.READY for part in python_parts):
            self._spares.replenish(python_parts[-1].command, time.monotonic())

    async def _run_housekeeping(self) -> None:
        while True:
            for name, child in list(self._children.items()):
                # The child may have been replaced during the rotation.
                if await self._disk.submit(child.rotate_logs) and self._children.get(name) is child:
                    child.reopen_logs()
            await self._warn_of_foreign_listeners()
            self._replenish_spares()
            await asyncio.sleep(_HOUSEKEEPING_EVERY_S)

    async def _warn_of_foreign_listeners(self) -> None:
        leaders = {child.pid for child in self._children.values()}
        listening = Counter((part.host, part.port) for part in self._parts.values() if part.host and part.port)
        shared = [(host, port) for (host, port), count in listening.items() if count > 1]
        try:
            found = await self._disk.submit(
                lambda: {
                    (listener, port)
                    for host, port in shared
                    for listener in foreign_listeners.find(host, port, leaders)
                }
            )
        except OSError:
            # /proc is unreadable: skip the check.
            return
        for name, port in found - self._foreign:
            self._notify(f"Port {port} is shared with {name}, which gets a share of the connections; end it.")
        self._foreign = found

    async def _announce_ready(self) -> None:
        # A reader of the announcement may read the roster next, and should have seen any warning.
        await self._roster.flush()
        await self._warn_of_foreign_listeners()
        # In a thread, because it may read files of a hanging disk.
        threading.Thread(target=self._on_ready, name="on-ready", daemon=True).start()

    def _reap_exited(self) -> None:
        # Signals coalesce, so every child is checked.
        for name, child in list(self._children.items()):
            if child.exited():
                self._reap(name)
        if os.getpid() == 1:
            reap_orphans({child.pid for child in self._children.values()} | self._spares.pids)

    def _reap(self, name: str) -> None:
        status = self._children.pop(name).reap()
        self._probes.pop(name).cancel()
        self._exit_causes[name] = f" ({_exit_cause(status)})"
        if status != 0 or self._state.parts[name].phase in {Phase.STARTING, Phase.READY}:
            self._notify(f"{name} exited{self._exit_causes[name]}.")
        self._observations.put_nowait(Exited(name))

    def _row(self, part: Part) -> Row:
        part_state = self._state.parts[part.name]
        child = self._children.get(part.name)
        return Row(
            name=part.name,
            pid=None if child is None else child.pid,
            host=part.host,
            port=part.port,
            admin_port=part.admin_port,
            state=part_state.phase.value,
            restarts=max(0, part_state.starts - 1),
            output=str(part.command.output),
            waits_for=part_state.not_ready_reason,
        )

    def _report_changes(self, before: FleetState, after: FleetState) -> None:
        for name, part_state in after.parts.items():
            previous = before.parts[name]
            if part_state.not_ready_reason and part_state.not_ready_reason != previous.not_ready_reason:
                self._notify(f"{name} is not ready: {part_state.not_ready_reason}.")
            if part_state.phase is previous.phase:
                continue
            if part_state.phase is Phase.READY and part_state.starts > 1:
                self._notify(f"{name} is ready again after {part_state.since_s - previous.since_s:.1f} s.")
            if part_state.phase is Phase.DRAINING:
                self._notify(f"{name} drains.")

    def _failure_of(self, name: str) -> str:
        output, cause = self._parts[name].command.output, self._exit_causes.get(name, "")
        with contextlib.suppress(OSError):
            written = output.read_bytes()
            # A file that is now shorter was rotated, so all of it is of this run.
            start = self._output_bytes[name] if self._output_bytes[name] <= len(written) else 0
            lines = written[start:].decode(errors="replace").strip().splitlines()
            if lines:
                return f"{name} did not come up{cause}; its last output: {lines[-1][:300]} (all of it is in {output})."
        return f"{name} did not come up{cause} and wrote nothing to {output}."


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _exit_cause(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"
