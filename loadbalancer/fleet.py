"""Runs the parts: observes, asks `supervisor.step`, does what it says, and keeps run/topology.json true.

Invariants:

- Whatever ends `run`, no process that it started is left.
- The event loop waits for no disk, but where a process is started, which reads a program from one: files are written,
  and /proc is looked through, beside it (`loadbalancer.disk_worker`).
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

from loadbalancer import foreign_listeners, roster, supervisor
from loadbalancer.disk_worker import Scribe
from loadbalancer.errors import PartFailed
from loadbalancer.nginx import configuration_files
from loadbalancer.part_kinds import Part
from loadbalancer.probes import HttpProbe, until_ready
from loadbalancer.processes import Child, Spare, reap_orphans, spawn
from loadbalancer.supervisor import (
    Action,
    Exited,
    Heard,
    Kill,
    Mode,
    Observation,
    Phase,
    Ready,
    RestartAsked,
    Silent,
    Start,
    State,
    Stop,
    StopAsked,
    Tick,
    Waiting,
)

# What signals ask for. A terminal that closes sends SIGHUP, so that one stops too.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RESTART_SIGNAL = signal.SIGUSR1
RELOAD_SIGNAL = signal.SIGUSR2

_SPARE_EVERY_S = 2.0
_TIDY_UP_S = 2.0
_LOOK_ROUND_EVERY_S = 10.0
_RENEWAL_EVERY_S = 2.0
# Questions overlap, so that a frozen part has been silent twice after 1.25 to 1.5 s, and a client that waits 2 s for an
# answer still has time for its second try.
_WATCH_EVERY_S = 0.25


class Fleet:
    """All parts of one home directory. Make and run it in the main thread, where signals and children report.

    Args:
        home: The home directory; its lock is held by the caller.
        parts: What to run, in the order in which to start them.
        came_up: Called once, when every part was ready, beside the event loop, so that it may block.
        tell: Told in a sentence whatever an operator may want to know.
        spare: How to start a process that waits to become any part that has `words`; None for no spares.
        spares: How many of them wait.
    """

    def __init__(
        self,
        home: Path,
        parts: Sequence[Part],
        *,
        came_up: Callable[[], None],
        tell: Callable[[str], None],
        spare: Sequence[str] | None = None,
        spares: int = 0,
    ) -> None:
        self._home = home
        self._spare_argv = spare
        self._spares_wanted = 0 if spare is None else spares
        self._spares: list[Spare] = []
        self._next_spare_s = 0.0
        self._parts = {part.name: part for part in parts}
        self._came_up = came_up
        self._tell = tell
        self._state = supervisor.initial(tuple(parts), time.monotonic())
        self._children: dict[str, Child] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._seen: asyncio.Queue[Observation] = asyncio.Queue()
        self._rows: list[roster.Row] = []
        self._writing: asyncio.Task[None] | None = None
        files = next((part.command.reload_files for part in parts if part.command.reload_files), ())
        # Before nginx reads them for the first time.
        self._stamps = configuration_files.stamps(files)
        self._strangers: set[tuple[str, int]] = set()
        # How long each part's output was when we came, and how the part ended last.
        self._said_before: dict[str, int] = {part.name: _size(part.command.output) for part in parts}
        self._ends: dict[str, str] = {}
        self._greeting = False

    def __repr__(self) -> str:
        return f"<Fleet in {self._home}: {self._state!r}>"

    def ask_to_stop(self) -> None:
        """Stop everything in order; asked again, hurry."""
        self._seen.put_nowait(StopAsked())

    def ask_to_restart(self) -> None:
        """Restart the replicas one after the other."""
        self._seen.put_nowait(RestartAsked())

    def reload(self) -> None:
        """Have every nginx read its certificate again; connected clients stay connected."""
        for child in self._children.values():
            child.reload()

    async def run(self) -> None:
        """Start everything, keep it running, and return when all of it has stopped because somebody asked.

        Raises:
            PartFailed: A part did not come up in the first place; the others were stopped.
        """
        loop = asyncio.get_running_loop()
        self._scribe = Scribe()
        # One signal for all children, instead of a descriptor each: it works on every kernel.
        loop.add_signal_handler(signal.SIGCHLD, self._look_for_ended)
        rounds = asyncio.create_task(self._look_round(), name="rounds")
        renewals = asyncio.create_task(self._look_for_renewals(), name="renewals")
        try:
            await self._supervise()
        finally:
            rounds.cancel()
            renewals.cancel()
            loop.remove_signal_handler(signal.SIGCHLD)
            for probe in self._probes.values():
                probe.cancel()
            await asyncio.gather(*self._probes.values(), return_exceptions=True)
            for child in self._children.values():
                child.reap()
            self._discard_spares()
            await self._end_roster()
        if self._state.failed is not None:
            raise PartFailed(await self._verdict(self._state.failed))

    async def _supervise(self) -> None:
        parts = tuple(self._parts.values())
        self._take_in(Tick())
        while self._state.mode is not Mode.ENDED:
            wake_s = supervisor.next_wake_s(parts, self._state)
            pause_s = None if wake_s is None else max(0.0, wake_s - time.monotonic())
            try:
                observation = await asyncio.wait_for(self._seen.get(), pause_s)
            except TimeoutError:
                observation = Tick()
            self._take_in(observation)

    def _take_in(self, observation: Observation) -> None:
        before = self._state
        self._state, actions = supervisor.step(tuple(self._parts.values()), before, observation, time.monotonic())
        self._report(before, self._state)
        for action in actions:
            self._act(action)
        self._keep_spares()
        self._publish()
        if self._state.came_up and not before.came_up:
            # Once the rows are written: who hears of it looks for them.
            self._greeting = True
            self._write()

    def _act(self, action: Action) -> None:
        # A part without a child has just ended, and that is on its way through the queue.
        child = self._children.get(action.name)
        match action:
            case Start(name):
                self._start(self._parts[name])
            case Stop() if child is not None:
                child.stop()
            case Kill(name) if child is not None:
                frozen = self._state.parts[name].phase is Phase.READY
                self._tell(f"{name} {'does not answer' if frozen else 'takes too long'} and is killed")
                child.kill()
            case _:
                pass

    def _start(self, part: Part) -> None:
        try:
            self._children[part.name] = self._from_spare(part) or spawn(part.command)
        except OSError as error:
            self._tell(f"{part.name} cannot be started: {error}")
            self._seen.put_nowait(Exited(part.name))
            return
        self._probes[part.name] = asyncio.create_task(self._watch(part), name=f"probe {part.name}")

    def _from_spare(self, part: Part) -> Child | None:
        while part.command.words and self._spares:
            child = self._spares.pop(0).become(part.command)
            if child is not None:
                return child
        return None

    def _keep_spares(self) -> None:
        if self._state.mode is not Mode.RUNNING:
            self._discard_spares()
            return
        models = [part for part in self._parts.values() if part.command.words]
        # Not while a part starts: it needs the cores more.
        if self._spare_argv is None or any(self._state.parts[part.name].phase is not Phase.READY for part in models):
            return
        now_s = time.monotonic()
        if not models or len(self._spares) >= self._spares_wanted or now_s < self._next_spare_s:
            return
        # One after the other, for loading takes a core.
        self._next_spare_s = now_s + _SPARE_EVERY_S
        command = models[-1].command
        try:
            self._spares.append(Spare(self._spare_argv, command.environ, command.output.with_name("spare.out")))
        except OSError as error:
            self._tell(f"no spare process can be started: {error}")

    def _discard_spares(self) -> None:
        while self._spares:
            self._spares.pop().discard()

    async def _watch(self, part: Part) -> None:
        await until_ready(part.probe, lambda why: self._seen.put_nowait(Waiting(part.name, why)))
        self._seen.put_nowait(Ready(part.name))
        if part.watch is not None:
            async with asyncio.TaskGroup() as questions:
                while True:
                    questions.create_task(self._ask(part.name, part.watch))
                    await asyncio.sleep(_WATCH_EVERY_S)

    async def _ask(self, name: str, watch: HttpProbe) -> None:
        asked_s = time.monotonic()
        silent = await watch.silent()
        self._seen.put_nowait(Silent(name, time.monotonic() - asked_s) if silent else Heard(name))

    async def _look_round(self) -> None:
        while True:
            for name, child in list(self._children.items()):
                # The child may have ended meanwhile, and another one of its name may have begun.
                if await self._scribe.do(child.bound_logs) and self._children.get(name) is child:
                    child.reopen_logs()
            await self._look_for_strangers()
            self._keep_spares()
            await asyncio.sleep(_LOOK_ROUND_EVERY_S)

    async def _look_for_renewals(self) -> None:
        balancers = [part for part in self._parts.values() if part.command.reload_files]
        if not balancers:
            return
        # All have the same files, and the same to say of them.
        command = balancers[0].command
        known = self._stamps
        while True:
            await asyncio.sleep(_RENEWAL_EVERY_S)
            found = await self._scribe.do(lambda: configuration_files.stamps(command.reload_files))
            if found == known:
                continue
            known = found
            complaint = await self._scribe.do(lambda: configuration_files.complaint_of(command.argv))
            if complaint is None:
                self.reload()
                self._tell("nginx takes the new certificate")
            else:
                # A pair is replaced one after the other; the second brings us here again.
                self._tell(f"nginx does not take the new certificate, and goes on with the old one: {complaint}")

    async def _look_for_strangers(self) -> None:
        leaders = {child.pid for child in self._children.values()}
        where = Counter((part.host, part.port) for part in self._parts.values() if part.host and part.port)
        shared = [(host, port) for (host, port), parts in where.items() if parts > 1]
        try:
            strangers = await self._scribe.do(
                lambda: {
                    (name, port) for host, port in shared for name in foreign_listeners.strangers(host, port, leaders)
                }
            )
        except OSError:
            # Who cannot look does not know; serving goes on.
            return
        for name, port in strangers - self._strangers:
            self._tell(f"{name} also listens on port {port} and takes a part of the clients; end it")
        self._strangers = strangers

    def _look_for_ended(self) -> None:
        # Signals coalesce, so every child is looked at.
        for name, child in list(self._children.items()):
            if child.ended():
                self._bury(name)
        if os.getpid() == 1:
            ours = {child.pid for child in self._children.values()} | {spare.pid for spare in self._spares}
            reap_orphans(ours)

    def _bury(self, name: str) -> None:
        status = self._children.pop(name).reap()
        self._probes.pop(name).cancel()
        self._ends[name] = f" ({_cause(status)})"
        if status != 0 or self._state.parts[name].phase in {Phase.STARTING, Phase.READY}:
            self._tell(f"{name} ended{self._ends[name]}")
        self._seen.put_nowait(Exited(name))

    def _publish(self) -> None:
        rows = [self._row(part) for part in self._parts.values()]
        if rows == self._rows:
            return
        self._rows = rows
        self._write()

    def _write(self) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_rows(), name="roster")

    async def _write_rows(self) -> None:
        written: list[roster.Row] | None = None
        # What changes during a write is written next, and whatever was overtaken never.
        while written is not self._rows or self._greeting:
            if written is self._rows:
                self._greeting = False
                await self._look_for_strangers()
                # In a thread of its own: it may read files that the rows need not wait for.
                threading.Thread(target=self._came_up, name="came-up", daemon=True).start()
                continue
            written = rows = self._rows
            try:
                await self._scribe.do(lambda rows=rows: roster.write(self._home, rows))  # type: ignore[misc]
            except OSError as error:
                # A full disk is no reason to stop serving.
                self._tell(f"{roster.path_in(self._home)} cannot be written and is out of date: {error}")

    async def _end_roster(self) -> None:
        """Remove the rows, unless the disk hangs: then the next start finds that nothing of them runs any more."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await asyncio.wait([self._scribe.do(lambda: roster.remove(self._home))], timeout=_TIDY_UP_S)

    def _row(self, part: Part) -> roster.Row:
        own = self._state.parts[part.name]
        child = self._children.get(part.name)
        return roster.Row(
            name=part.name,
            pid=None if child is None else child.pid,
            host=part.host,
            port=part.port,
            admin_port=part.admin_port,
            state=own.phase.value,
            restarts=max(0, own.started - 1),
            output=str(part.command.output),
            waits_for=own.waits_for,
        )

    def _report(self, before: State, after: State) -> None:
        for name, own in after.parts.items():
            was = before.parts[name]
            if own.waits_for and own.waits_for != was.waits_for:
                self._tell(f"{name} waits: {own.waits_for}")
            if own.phase is was.phase:
                continue
            if own.phase is Phase.READY and own.started > 1:
                self._tell(f"{name} is ready again after {own.since_s - was.since_s:.1f} s")
            if own.phase is Phase.DRAINING:
                self._tell(f"{name} drains")

    async def _verdict(self, name: str) -> str:
        output, ended = self._parts[name].command.output, self._ends.get(name, "")
        with contextlib.suppress(OSError):
            said = output.read_bytes()
            # A log that was set aside meanwhile begins anew.
            before = self._said_before[name] if self._said_before[name] <= len(said) else 0
            lines = said[before:].decode(errors="replace").strip().splitlines()
            if lines:
                return f"{name} did not come up{ended}; it said: {lines[-1][:300]} (all of it is in {output})"
        return f"{name} did not come up{ended} and said nothing in {output}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _cause(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"
