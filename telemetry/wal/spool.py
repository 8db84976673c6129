"""One producer's write-ahead log: the events that were accepted and are not in the archive yet.

Invariants:

- Numbers are dense: an event gets the next one when it is appended to the ring, and only then.
- `durable` moves only after fdatasync of everything up to it, and only durable events are shipped. Feedback is
  acknowledged once `durable` has passed it, served events once they are in the ring.
- Nothing appended is dropped. When the budget or the ring has no room, `has_room` is False, before there is a number.
  Only the archive's watermark releases.
- After a failed commit its waiters are refused, and the same events are committed again later under the same numbers. A
  number never has two contents, whatever of a failed write a power cut brings back.
- Bound: ring and segments together stay below the budget plus one commit.

    [RINGED] --group commit--> [WRITTEN] --fdatasync--> [DURABLE] --shipper--> ... --watermark--> [RELEASED]
                                   |
                                   +--error--> ringed still; callers that wait are refused (503)

Called in the event loop's thread. Disk operations go through aiofiles in one thread of the spool, one call for each
commit.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

from aiofiles.os import wrap

from telemetry.batch import Position
from telemetry.errors import SpoolError
from telemetry.notes import DiskFailed, DiskRecovered, Observer, notify
from telemetry.settings import ProducerSettings
from telemetry.shielding import shield_until_done
from telemetry.wal.commit_schedule import CommitSchedule
from telemetry.wal.disk import Disk, RealDisk
from telemetry.wal.drops import UnrecordedDrops
from telemetry.wal.frame import encode_frame
from telemetry.wal.journal import Journal, Run
from telemetry.wal.recent_frames import RECENT_BYTES, RecentFrames
from telemetry.wal.recovery import recover
from telemetry.wal.renumbering import renumber_after
from telemetry.wal.slot import Slot
from telemetry.wal.slot_identity import SlotIdentity

_T = TypeVar("_T")
# Header and padding that a line takes in the ring and a segment, rounded up.
_FRAME_BYTES = 32


class _Commit(NamedTuple):
    first_seq: int
    frames: list[bytes]
    size_bytes: int
    ring_offset: int


class Spool:
    """The write-ahead log of one open slot.

    Args:
        slot: The slot; `close` closes it too.
        settings: Sizes and times.
        disk: The file system.
        hit: Called with the names of failpoints.
        observer: Notified when the disk fails and when it recovers.
        recent_bytes: How much of the durable events stays in memory for the shipper.

    Attributes:
        producer_id: The producer id of new events.
        epoch: The epoch of new events.
        next_seq: The number of the next event.
        durable: The position of the last durable event of any epoch; (0, 0) if none is held.
        recovered: How many events earlier processes left.
        was_clean: Whether the last process had shipped everything.
        drops: The drops that no gap record counts yet.
        schedule: When commits are due, and whether the disk accepts them.

    Raises:
        SpoolError: The slot's files cannot be used.
    """

    def __init__(
        self,
        slot: Slot,
        settings: ProducerSettings,
        disk: Disk | None = None,
        hit: Callable[[str], None] = lambda _name: None,
        observer: Observer | None = None,
        recent_bytes: int = RECENT_BYTES,
    ) -> None:
        self._slot = slot
        self._observer = observer
        self._settings = settings
        self._hit = hit
        self._recent_bytes = recent_bytes
        disk = disk or RealDisk()
        segment_bytes = min(settings.segment_bytes, settings.spool_bytes // 8)
        self._journal = Journal(disk, slot.directory, segment_bytes, settings.segment_age_s, hit)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        # Held during a commit, a read or release of segments, a renumbering.
        self._disk_lock = asyncio.Lock()
        self.schedule = CommitSchedule(settings.commit_interval_s)
        self._on_durable: Callable[[], None] = lambda: None
        try:
            recovered = recover(slot, self._journal, settings, disk, hit)
        except OSError as error:
            raise SpoolError(f"Slot {slot.number} cannot be used: {error.strerror}.") from None
        self._ring = recovered.ring
        self.drops = UnrecordedDrops(self._ring.buffer)
        # In bytes of the log and of the ring: for feedback, and the share of them for other events.
        self._limits = settings.spool_bytes, self._ring.capacity
        self._served_limits = tuple(int(settings.served_share * limit) for limit in self._limits)
        self.recovered = recovered.events
        self.was_clean = recovered.was_clean
        self._begin_epoch(recovered.identity.producer, recovered.identity.epoch)
        for frame in recovered.frames:
            self._frames.append(frame)
        self.next_seq += len(recovered.frames)

    def _begin_epoch(self, producer: str, epoch: int, last_seq: int = 0) -> None:
        self.producer_id = producer
        self.epoch = epoch
        self.next_seq = last_seq + 1
        self.durable = self._journal.last
        self._frames = RecentFrames(self.next_seq, self._recent_bytes)
        self._note_journal_size()

    def __repr__(self) -> str:
        return f"<Spool {self.producer_id} {self.last_appended} durable={self.durable} {self.held_bytes} B>"

    @property
    def identity(self) -> SlotIdentity:
        """The slot's identity."""
        if self._slot.identity is None:
            raise SpoolError(f"Slot {self._slot.number} has no identity.")
        return self._slot.identity

    @property
    def last_appended(self) -> Position:
        """The position of the last event appended, in this epoch."""
        return Position(self.epoch, self.next_seq - 1)

    @property
    def held(self) -> int:
        """How many events are held."""
        return self._journal_events + self.next_seq - 1 - self._frames.durable_seq

    @property
    def held_bytes(self) -> int:
        """The bytes of the budget that they use."""
        return self._journal_bytes + self._frames.pending_bytes

    def count_after(self, position: Position) -> int:
        """Count the events held beyond a position; numbers lost to damage count too."""
        durable_seq = self._frames.durable_seq
        count = self.next_seq - 1 - max(durable_seq, position.seq if position.epoch == self.epoch else 0)
        for segment in self._journal.segments:
            if segment.last > position:
                first = max(segment.first, Position(position.epoch, position.seq + 1))
                count += segment.last_seq - first.seq + 1
        return count

    async def bind_archive(self, archive: str) -> None:
        """Save the identity of the archive that the slot's events go to.

        Raises:
            SpoolError: The disk refused; nothing has changed.
        """
        async with self._disk_lock:
            try:
                await self._run_in_thread(self._slot.save, replace(self.identity, archive=archive))
            except OSError as error:
                raise SpoolError(f"Slot {self._slot.number} cannot be written: {error.strerror}.") from None

    def on_durable(self, call: Callable[[], None]) -> None:
        """Set the function that is called after every successful commit, so that the shipper need not poll."""
        self._on_durable = call

    @property
    def limit_bytes(self) -> int:
        """The most that could ever fit: the smaller one of budget and ring."""
        return min(self._limits)

    def has_room(self, size_bytes: int, *, lines: int = 1, reserve: bool) -> bool:
        """Whether lines of `size_bytes` together could be appended now; `reserve` allows the share for feedback."""
        log_bytes, ring_bytes = self._limits if reserve else self._served_limits
        size_bytes += _FRAME_BYTES * lines
        ring = self._ring
        return (
            self._journal_bytes + self._frames.pending_bytes + size_bytes <= log_bytes
            # Twice: at its end the ring may leave as much unused as a frame takes.
            and ring.head - ring.tail + 2 * size_bytes <= ring_bytes
        )

    def append(self, line: bytes) -> None:
        """Append an event that `has_room`; from now on it survives the process.

        Args:
            line: The event, encoded with `producer_id`, `epoch` and `next_seq`.

        Raises:
            SpoolError: The ring has no room.
        """
        frame = encode_frame(self.next_seq, line)
        if not self._ring.append(frame):
            raise SpoolError(f"The ring of slot {self._slot.number} has no room for the event.")
        self._hit("spool.ringed")
        frames = self._frames
        frames.append(frame)
        self.next_seq += 1
        self.schedule.appended(frames.uncommitted_bytes)

    def when_durable(self) -> "asyncio.Future[bool]":
        """Request a commit of everything appended so far.

        Returns:
            A future: True once it is durable; False if the disk refused. The commit is then tried again later.
        """
        return self.schedule.when_durable(self.next_seq - 1)

    async def run(self) -> None:
        """Commit whenever a commit is due, until cancelled."""
        # Events carried over from an earlier process have no timer.
        self.schedule.make_due()
        while True:
            await self.schedule.wait()
            await shield_until_done(self.commit())

    async def commit(self) -> None:
        """Make pending events durable; if the disk refuses, refuse those that wait."""
        async with self._disk_lock:
            commit = self._begin_commit()
            if commit is None:
                return
            write = partial(self._journal.write, self.producer_id, self.epoch, commit.first_seq, commit.frames)
            try:
                await wrap(write)(executor=self._thread)
            except Exception as error:  # noqa: BLE001 - after any failure nothing of the write counts
                if self.schedule.failed():
                    notify(self._observer, DiskFailed(f"{type(error).__name__}: {error}"))
                self.schedule.schedule_rest()
            else:
                self._committed(commit)

    def _begin_commit(self) -> _Commit | None:
        self.schedule.begin()
        frames = self._frames.begin_commit()
        if not frames:
            return None
        return _Commit(self._frames.durable_seq + 1, frames, self._frames.pending_bytes, self._ring.head)

    def _committed(self, commit: _Commit) -> None:
        self._frames.mark_durable(len(commit.frames), commit.size_bytes)
        durable_seq = self._frames.durable_seq
        self.durable = Position(self.epoch, durable_seq)
        self._note_journal_size()
        self._ring.release(commit.ring_offset, durable_seq)
        if self.schedule.succeeded(durable_seq):
            notify(self._observer, DiskRecovered())
        if self.next_seq - 1 > durable_seq:
            # Appended during the write.
            self.schedule.schedule_rest()
        self._on_durable()

    def _note_journal_size(self) -> None:
        """Copy the journal's totals in the loop's thread, so that all sums change at once."""
        self._journal_bytes, self._journal_events = self._journal.size_bytes, self._journal.events

    async def read(self, after: Position, max_lines: int, max_bytes: int) -> Run | None:
        """Read the durable events after a position; the first line comes even if it is longer than `max_bytes`.

        Returns:
            A dense run of lines of one epoch, which begins later than `after` + 1 only where damage lost events; None
            if nothing follows.

        Raises:
            SpoolError: A segment cannot be read.
        """
        if after >= self.durable:
            return None
        if after.epoch == self.epoch and after.seq + 1 >= self._frames.first_seq:
            return Run(self.epoch, after.seq + 1, self._frames.durable_lines(after.seq + 1, max_lines, max_bytes))
        async with self._disk_lock:
            try:
                return await self._run_in_thread(self._journal.read, after, max_lines, max_bytes)
            except OSError as error:
                raise SpoolError(f"The spool cannot be read: {error.strerror}.") from None

    async def release(self, through: Position) -> int:
        """Remove whole segments up to the archive's watermark; return how many events they held."""
        segments = self._journal.segments
        if not segments or segments[0].last > through:
            return 0
        # A small budget cannot wait until the open segment is old.
        rotate = 2 * self.held_bytes > self._settings.spool_bytes
        async with self._disk_lock:
            try:
                count = await self._run_in_thread(partial(self._journal.release, through, rotate=rotate))
            except OSError:
                # The segments remain, and the next watermark releases them.
                count = 0
            self._note_journal_size()
            return count

    async def renumber_after(self, after: Position, *, producer: str, epoch: int) -> int:
        """Renumber the events after a position, as `renumber_after` does; blocks until that is durable.

        Returns:
            How many events stay behind with the old stream.

        Raises:
            SpoolError: The disk refused; the identity is as before.
        """
        async with self._disk_lock:
            try:
                pending = self._begin_commit()
                if pending is not None:
                    self._journal.write(self.producer_id, self.epoch, pending.first_seq, pending.frames)
                    self._committed(pending)
                identity = self.identity.with_ended(self.producer_id, self.epoch, self._frames.durable_seq)
                renumbered = renumber_after(self._slot, self._journal, identity, after, producer=producer, epoch=epoch)
            except OSError as error:
                self.schedule.schedule_rest()
                raise SpoolError(f"Slot {self._slot.number} cannot take another identity: {error.strerror}.") from None
            self._ring.reset(epoch, renumbered.last_seq)
            self._begin_epoch(producer, epoch, renumbered.last_seq)
            return renumbered.left_behind

    async def close_segment(self) -> None:
        """Write no more to the open segment, so that it is released as soon as the archive has its events."""
        async with self._disk_lock:
            await self._run_in_thread(self._journal.close_segment)

    async def _run_in_thread(self, call: Callable[..., _T], *args: object) -> _T:
        return await shield_until_done(wrap(call)(*args, executor=self._thread))

    def close(self, *, clean: bool) -> None:
        """Stop writing and close the slot; `clean` if everything was shipped."""
        self.schedule.cancel_timer()
        self._thread.shutdown()
        self._journal.close_segment()
        try:
            ended = self.identity.with_ended(self.producer_id, self.epoch, self._frames.durable_seq)
            self._slot.save(replace(ended, clean=clean))
        except OSError:
            # The next start counts as unclean.
            pass
        finally:
            self._ring.close()
            self._slot.close()
