"""A slot on a disk that loses what was not synced, with its callers, stream and archive, and every promise checked."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

from telemetry.batch import EventPosition, Position
from telemetry.errors import SpoolError
from telemetry.events import decode, encode
from telemetry.ids import uuid7
from telemetry.settings import ProducerSettings
from telemetry.wal.frame import line_of
from telemetry.wal.slot import Slot
from telemetry.wal.spool import Spool
from tests.support import sample_events
from tests.support.spools.killed_spool import kill
from tests.support.spools.shadow_disk import Crash, ShadowDisk

DIRECTORY = Path("/spool/0")
SETTINGS = ProducerSettings(spool_bytes=160 * 1024, ring_bytes=64 * 1024, segment_bytes=64 * 1024)
# What carrying over, headers and one commit may add to the budget.
SLACK_BYTES = 64 * 1024


class World:
    """A slot on a shadow disk, what its callers were acknowledged, and a stream and an archive behind it."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.loop = asyncio.new_event_loop()
        self.disk = ShadowDisk(self.rng)
        self.disk.make_directory(DIRECTORY)
        self.number = 0
        self.appended: set[str] = set()
        # What must be there after a kill, and after a power cut.
        self.accepted: set[str] = set()
        self.durable: set[str] = set()
        self.durable_positions: set[EventPosition] = set()
        self.last_epoch = self.cut_epoch = 0
        # The last number that was given in each epoch.
        self.given: dict[tuple[str, int], int] = {}
        # What the stream has, what it ever had, and what the archive has.
        self.stream: dict[EventPosition, bytes] = {}
        self.shipped: dict[EventPosition, bytes] = {}
        self.archived: dict[str, EventPosition] = {}
        # Events left behind with a stream that another process writes to as well.
        self.left: set[str] = set()
        self.watermarks: dict[str, Position] = {}
        self.reached: dict[str, Position] = {}
        self.crashes = self.moments = 0
        self.spool: Spool | None = None
        self.hit: Callable[[str], None] = lambda _name: None
        # How likely a recovery is stopped as well.
        self.stops_recovery = 0.3
        self.boot()

    # What may happen.

    def append(self, count: int, size_bytes: int) -> None:
        """Served events come."""

        async def act() -> None:
            for _ in range(count):
                event_id = self._next_id()
                event = sample_events.served(event_id=event_id, user_id="u" * size_bytes)
                line = encode(event, self.open.producer_id, self.open.epoch, self.open.next_seq)
                if self.open.has_room(len(line), reserve=False):
                    self.appended.add(event_id)
                    self.open.append(line)
                    self.accepted.add(event_id)

        self._do(act)

    def accept(self, count: int, size_bytes: int, *, commit: bool) -> None:
        """A client's feedback comes, and waits for the disk."""

        async def act() -> None:
            spool = self.open
            ids = [self._next_id() for _ in range(count)]
            first = spool.next_seq
            lines = [
                encode(
                    sample_events.feedback(event_id=name, user_id="u" * size_bytes), spool.producer_id, spool.epoch, seq
                )
                for seq, name in enumerate(ids, first)
            ]
            if not spool.has_room(sum(map(len, lines)), lines=count, reserve=True):
                return
            self.appended.update(ids)
            for line in lines:
                spool.append(line)
            done = spool.when_durable()
            done.add_done_callback(lambda future: self.durable.update(ids) if future.result() else None)
            if commit:
                await spool.commit()

        self._do(act)

    def commit(self) -> None:
        """A commit is due."""
        self._do(self.open.commit)

    def rotate(self) -> None:
        """The current segment is old."""
        for segment in self.open._journal.segments:
            segment.opened_s -= 1000

    def ship(self, count: int) -> None:
        """Some batches go to the stream."""

        async def act() -> None:
            for _ in range(count):
                producer = self.open.producer_id
                run = await self.open.read(self.reached.get(producer, Position(0, 0)), self.rng.randint(1, 9), 4096)
                if run is None:
                    return
                self._receive(producer, run.epoch, run.first_seq, list(run.lines))

        self._do(act)

    def archive(self) -> None:
        """The archive commits some events and publishes its watermark."""

        async def act() -> None:
            producer = self.open.producer_id
            positions = sorted(position for position in self.stream if position.producer == producer)
            for position in positions[: self.rng.randint(1, len(positions))] if positions else []:
                event_id = decode(self.stream.pop(position)).event.event_id
                assert self.archived.setdefault(event_id, position) == position, f"{event_id} is archived twice"
                self.watermarks[producer] = max(
                    self.watermarks.get(producer, Position(0, 0)), Position(position.epoch, position.seq)
                )
            await self.open.release(self.watermarks.get(producer, Position(0, 0)))

        self._do(act)

    def lose_stream(self) -> None:
        """The stream loses everything."""
        producer = self.open.producer_id
        self.stream = {position: line for position, line in self.stream.items() if position.producer != producer}
        self.reached[producer] = self.watermarks.get(producer, Position(0, 0))

    def renumber(self, *, new_producer: bool) -> None:
        """Something in the stream demands another identity."""

        async def act() -> None:
            spool = self.open
            while (run := await spool.read(self.reached.get(spool.producer_id, Position(0, 0)), 100, 65536)) and (
                run.epoch < spool.epoch
            ):
                self._receive(spool.producer_id, run.epoch, run.first_seq, list(run.lines))
            reached = self.reached.get(spool.producer_id, Position(0, 0))
            if new_producer:
                self.left |= {decode(line).event.event_id for line in self.stream.values()}
            if new_producer:
                await spool.renumber_after(reached, producer=uuid7(), epoch=spool.epoch + 1)
            else:
                above = spool.epoch + self.rng.randint(0, 2)
                after = max(reached, Position(spool.epoch, 0))
                await spool.renumber_after(after, producer=spool.producer_id, epoch=above + 1)
                self.reached[spool.producer_id] = Position(above, 10**6)
            self.last_epoch = spool.epoch

        self._do(act)

    def fail(self, kinds: list[str], number: int) -> None:
        """The disk begins to refuse."""
        self.disk.refusals = dict.fromkeys(kinds, number)

    def recover(self) -> None:
        """The disk recovers."""
        self.disk.refusals = {}

    def write_back(self) -> None:
        """The kernel writes some parts back."""
        self.disk.write_back(self.rng)

    def crash_in(self, moments: int) -> None:
        """Stop the process a number of disk operations from now."""
        self.disk.crash_at = self.disk.moments + moments

    def stop(self, *, power_cut: bool) -> None:
        """Stop the process now, and start another one."""
        self.disk.stop()
        self._end_process()
        self._next_process(power_cut=power_cut)

    # How it is done.

    @property
    def open(self) -> Spool:
        assert self.spool is not None
        return self.spool

    def boot(self) -> None:
        """Start a process; a crash on the way is followed by another start."""
        while True:
            lock_fd = os.open(os.devnull, os.O_RDONLY)
            try:
                slot = Slot(0, DIRECTORY, lock_fd, self.disk)
                self.spool = Spool(slot, SETTINGS, self.disk, self._pass)
            except Crash:
                os.close(lock_fd)
                self.crashes += 1
                self._change_disk(power_cut=self.rng.random() < 0.5)
            except SpoolError:
                os.close(lock_fd)
                assert self.disk.refusals, "a slot on a healthy disk can always be opened"
                self.recover()
            else:
                producer = self.spool.producer_id
                self.reached.setdefault(producer, Position(0, 0))
                self.last_epoch = self.spool.epoch
                return

    def _pass(self, failpoint: str) -> None:
        self.hit(failpoint)

    def _next_id(self) -> str:
        self.number += 1
        return f"ev-{self.number:08d}"

    def _receive(self, producer: str, epoch: int, first_seq: int, lines: list[bytes]) -> None:
        for seq, line in enumerate(lines, first_seq):
            position = EventPosition(producer, epoch, seq)
            assert decode(line)[1:] == position, "a line has the position of another event"
            assert self.shipped.setdefault(position, line) == line, f"{position} was shipped with two contents"
            self.stream[position] = line
        self.reached[producer] = Position(epoch, first_seq + len(lines) - 1)

    def _do(self, act: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await act()

        try:
            self.loop.run_until_complete(run())
        except Crash:
            self.crashes += 1
            self._end_process()
            self._next_process(power_cut=self.rng.random() < 0.5)
        except SpoolError:
            assert self.disk.refusals

    def _end_process(self) -> None:
        spool, self.spool = self.open, None
        kill(spool)

    def _next_process(self, *, power_cut: bool) -> None:
        self._change_disk(power_cut=power_cut)
        self.boot()

    def _change_disk(self, *, power_cut: bool) -> None:
        before = self.disk
        self.moments += before.moments
        if power_cut:
            self.disk = self.disk.after_power_cut(self.rng)
            # From now on only what is found counts as accepted.
            self.accepted &= self.durable
            self.cut_epoch = self.last_epoch
        else:
            self.disk = self.disk.after_kill(self.rng)
        if before.crash_at is not None and before.crash_at > before.moments:
            self.crash_in(before.crash_at - before.moments)
        elif self.rng.random() < self.stops_recovery:
            self.crash_in(self.rng.randint(1, 15))

    def held(self) -> dict[tuple[int, int], bytes]:
        """Return everything that the spool holds, durable or not."""

        async def read() -> dict[tuple[int, int], bytes]:
            found: dict[tuple[int, int], bytes] = {}
            position = Position(0, 0)
            while (run := await self.open.read(position, 1000, 1 << 20)) is not None:
                for seq, line in enumerate(run.lines, run.first_seq):
                    assert (run.epoch, seq) not in found
                    found[run.epoch, seq] = line
                assert run.last > position
                position = run.last
            return found

        found = self.loop.run_until_complete(read())
        spool = self.open
        self.durable.update(decode(line).event.event_id for line in found.values())
        self.durable_positions.update(EventPosition(spool.producer_id, *position) for position in found)
        for seq, frame in enumerate(spool._frames.pending(), spool._frames.durable_seq + 1):
            found[spool.epoch, seq] = line_of(frame)
        for epoch, seq in found:
            key = spool.producer_id, epoch
            self.given[key] = max(self.given.get(key, 0), seq)
        # Damaged numbers are counted until they are released.
        assert len(found) == spool.held or (len(found) < spool.held and self.cut_epoch)
        return found

    def check(self) -> None:
        """Assert that every invariant holds."""
        spool = self.open
        held = self.held()
        positions: dict[str, tuple[int, int]] = {}
        for (epoch, seq), line in held.items():
            record = decode(line)
            assert record[1:] == (spool.producer_id, epoch, seq), "a line has the position of another event"
            event_id = record.event.event_id
            assert event_id in self.appended, f"{event_id} was never appended"
            assert event_id not in positions, f"{event_id} is held as {positions[event_id]} and as {(epoch, seq)}"
            positions[event_id] = (epoch, seq)
            known = self.shipped.get(EventPosition(spool.producer_id, epoch, seq))
            assert known is None or known == line, f"{(epoch, seq)} was shipped with another content"
            elsewhere = self.archived.get(event_id)
            assert elsewhere in (None, (spool.producer_id, epoch, seq)), f"{event_id} is archived as {elsewhere} too"
        lost = (self.accepted | self.durable) - positions.keys() - self.archived.keys() - self.left
        assert not lost, f"{sorted(lost)} are lost"
        watermark = self.watermarks.get(spool.producer_id, Position(0, 0))
        for epoch in {epoch for epoch, _ in held}:
            numbers = {seq for one, seq in held if one == epoch}
            # Of what is archived some may have been removed, and some of that may be back.
            first = watermark.seq + 1 if epoch == watermark.epoch else 1 if epoch > watermark.epoch else max(numbers)
            holes = set(range(first, max(numbers))) - numbers
            if epoch <= self.cut_epoch:
                # What was not durable when the power failed may be missing, and then it must show.
                holes = {seq for seq in holes if (spool.producer_id, epoch, seq) in self.durable_positions}
            assert not holes, f"epoch {epoch} lacks {sorted(holes)}"
        for (producer, epoch), last in spool.identity.ended.items():
            assert last <= self.given.get((producer, epoch), 0), f"{producer} had no event {epoch}-{last}"
        assert spool.held_bytes <= SETTINGS.spool_bytes + SLACK_BYTES

    def finish(self) -> None:
        """Ship and archive everything: each promised event is archived once."""
        self.disk.crash_at = None
        self.recover()
        self.commit()
        self.check()
        before = self.held()
        self.stop(power_cut=False)
        self.check()
        assert {key: line for key, line in self.held().items() if key in before} == before
        while self.reached[self.open.producer_id] < self.open.durable:
            self.ship(50)
        while any(position.producer == self.open.producer_id for position in self.stream):
            self.archive()
        self.check()
        self._end_process()
        self.loop.close()
