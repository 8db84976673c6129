"""One producer's write-ahead log: what was accepted and is not in the archive yet.

Invariants:

- Numbers are dense: an event gets the next one when it is appended, in the ring, and only then.
- `durable` moves only after fdatasync of everything up to it, and only what is durable is shipped. Feedback is answered
  when `durable` has passed it; served events are answered for as soon as they are in the ring.
- Nothing that was appended is dropped. When the budget or the ring has no room, `fits` says no, before there is a
  number. Only the archive's watermark releases.
- After a failed commit whoever waits for it is refused, and the same is committed again later under the same numbers. A
  number never has two contents, whatever of a failed write comes back after a power cut.
- Bound: ring and segments together stay below the budget plus one commit.

    [RINGED] --group commit--> [WRITTEN] --fdatasync--> [DURABLE] --shipper--> ... --watermark--> [FORGOTTEN]
                                   |
                                   +--error--> ringed still; who waits for an answer is refused (503)

Called from the event loop's thread; what blocks on the disk runs in one thread of the spool's own, one call a commit.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from aiofiles.os import wrap

from telemetry.batch import Position
from telemetry.errors import SpoolError
from telemetry.events import position_of, renumber
from telemetry.ids import uuid7
from telemetry.notes import DiskFailed, DiskRecovered, ProducerObserver, notify
from telemetry.settings import ProducerSettings
from telemetry.shielding import shield_until_done
from telemetry.wal.disk import Disk, RealDisk
from telemetry.wal.frame import frame, line_of
from telemetry.wal.journal import Journal, Run
from telemetry.wal.ring import Dropped, Ring
from telemetry.wal.slot import Identity, Slot

# Durable records that stay in memory for the shipper, which is then spared the file.
_RECENT_BYTES = 4 * 1024 * 1024
# So much is committed at once, whatever the time: about two hundred served lists. A commit and a batch cost as much
# processor time as they take to make, however many events are in them.
_COMMIT_BYTES = 256 * 1024
# An event that comes so late in the interval has the commit done at once: the loop is awake then, and the timer need
# not wake it.
_LATE = 0.8
# After the disk refused it is left alone for so long.
_RETRY_S = 0.25
# What one write takes when events move to another identity.
_MOVE_BYTES = 1024 * 1024
_MOVE_LINES = 10_000


class _Waiter(NamedTuple):
    last_seq: int
    done: "asyncio.Future[bool]"


class _Commit(NamedTuple):
    first_seq: int
    records: list[bytes]
    size_bytes: int
    place: int


class Spool:
    """One open slot's log.

    Args:
        slot: The slot, held by the caller.
        settings: Sizes and times.
        disk: The file system.
        hit: Called with the names of failpoints.

    Attributes:
        producer_id: The id that its events carry.
        epoch: The epoch that new events get.
        next_seq: The number that the next event gets.
        recovered: Events that earlier processes left.
        was_clean: Whether the last process said that everything of it had got out.

    Raises:
        SpoolError: The slot's files cannot be used.
    """

    def __init__(
        self,
        slot: Slot,
        settings: ProducerSettings,
        disk: Disk | None = None,
        hit: Callable[[str], None] = lambda _name: None,
        observer: ProducerObserver | None = None,
    ) -> None:
        self._slot = slot
        self._observer = observer
        self._settings = settings
        self._disk = disk or RealDisk()
        self._hit = hit
        segment_bytes = min(settings.segment_bytes, settings.spool_bytes // 8)
        self._journal = Journal(self._disk, slot.directory, segment_bytes, settings.segment_age_s, hit)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._write = wrap(self._journal.write)
        self._read = wrap(self._journal.read)
        self._release = wrap(self._journal.release)
        self._remember = wrap(slot.remember)
        # One at a time: a commit, a read of the segments, a release, a move.
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._late_at_s = 0.0
        self._retry_at_s = 0.0
        self._failing = False
        self._waiters: list[_Waiter] = []
        self._on_durable: Callable[[], None] = lambda: None
        try:
            self._open()
        except OSError as error:
            raise SpoolError(f"slot {slot.number} cannot be used: {error.strerror}") from None

    def _open(self) -> None:
        slot, journal = self._slot, self._journal
        known = slot.identity
        journal.recover(*((known.replaced, known.cut) if known is not None else ()))
        self._ring = Ring.open(self._disk, slot.directory, min(self._settings.ring_bytes, self._settings.spool_bytes))
        # Of the log and of the ring, in bytes: for anybody, and for what stops early.
        self._limits = self._settings.spool_bytes, self._ring.capacity
        self._served_limits = tuple(int(self._settings.served_share * limit) for limit in self._limits)
        if known is None:
            known = Identity(self._find_producer() or uuid7(), 0, slot.is_new)
        # A move to another identity that was not finished has not happened.
        journal.retire(lambda header: (header.producer, header.epoch) == known.moving)
        # Somebody else's, put here by hand: not ours to ship, and not ours to remove.
        journal.segments = [one for one in journal.segments if one.header.producer == known.producer]
        epoch = max(known.epoch, self._ring.epoch, journal.last.epoch)
        ended = known.with_ended(known.producer, known.epoch, journal.last_seq(known.epoch))
        carried: list[bytes] = []
        # One that is behind was brought back by a power cut or belongs to a move: what it holds has been settled.
        if self._ring.epoch >= known.epoch:
            last_seq, carried = self._settle_ring(known.producer)
            ended = ended.with_ended(known.producer, self._ring.epoch, last_seq)
        self.recovered = journal.events + len(carried)
        self.was_clean = known.clean
        # The ring first: what is carried must not be in one that is behind.
        self._ring.reset(epoch + 1)
        self._begin(known.producer, epoch + 1)
        self._last_durable = journal.last
        for record in carried:
            self._append(renumber(line_of(record), known.producer, epoch + 1, self.next_seq))
        slot.remember(replace(ended, epoch=epoch + 1, clean=False, moving=None, replaced=()))

    def _find_producer(self) -> str | None:
        """Read in the log itself whose it is."""
        if self._journal.segments:
            return self._journal.segments[-1].header.producer
        return next((position_of(line_of(record))[0] for record in self._ring.left.values()), None)

    def _settle_ring(self, producer: str) -> tuple[int, list[bytes]]:
        """Move what the last process left in the ring into segments, each run of numbers into one of its own.

        Returns:
            The last number of its epoch, and the records that the disk has no room for. They were not durable, so
            nobody knows their numbers, and they may get new ones.
        """
        ring, journal = self._ring, self._journal
        last_seq = max(journal.last_seq(ring.epoch), ring.durable_seq)
        left = [(seq, record) for seq, record in ring.left.items() if seq > last_seq]
        while left:
            first_seq = left[0][0]
            run = [record for number, (seq, record) in enumerate(left, first_seq) if seq == number]
            try:
                journal.write(producer, ring.epoch, first_seq, run)
            except OSError:
                # They will have other numbers, so what the failed write left must not come back.
                journal.remove_void()
                break
            journal.abandon()
            last_seq = first_seq + len(run) - 1
            del left[: len(run)]
        return last_seq, [record for _, record in left]

    def _begin(self, producer: str, epoch: int, next_seq: int = 1) -> None:
        self.producer_id = producer
        self.epoch = epoch
        self.next_seq = next_seq
        self._durable_seq = next_seq - 1
        # The newest records, durable ones first; the others are those that the ring has.
        self._records: list[bytes] = []
        self._records_first = next_seq
        self._records_bytes = 0
        self._pending_bytes = 0
        # Those of them that no commit has taken yet.
        self._fresh_bytes = 0
        self._weigh()

    def __repr__(self) -> str:
        return f"<Spool {self.producer_id} {self.generated} durable={self.durable} {self.held_bytes} B>"

    @property
    def _identity(self) -> Identity:
        if self._slot.identity is None:
            raise SpoolError(f"slot {self._slot.number} has no identity")
        return self._slot.identity

    @property
    def generated(self) -> Position:
        """The place of the last event appended, in this epoch."""
        return Position(self.epoch, self.next_seq - 1)

    @property
    def durable(self) -> Position:
        """The place of the last durable event of any epoch; (0, 0) if none is held."""
        return self._last_durable

    @property
    def held(self) -> int:
        """How many events are held."""
        return self._journal_events + self.next_seq - 1 - self._durable_seq

    @property
    def held_bytes(self) -> int:
        """What they cost of the budget."""
        return self._journal_bytes + self._pending_bytes

    @property
    def refuses(self) -> bool:
        """Whether the disk refused a moment ago."""
        return time.monotonic() < self._retry_at_s

    def count_after(self, place: Position) -> int:
        """Count what is held beyond a place; numbers lost to damage count too."""
        count = self.next_seq - 1 - max(self._durable_seq, place.seq if place.epoch == self.epoch else 0)
        for segment in self._journal.segments:
            if segment.last > place:
                first = max(segment.first, Position(place.epoch, place.seq + 1))
                count += segment.last_seq - first.seq + 1
        return count

    @property
    def archive(self) -> str | None:
        """The archive that the slot's events go to; None until the first of them is shipped."""
        return self._identity.archive

    async def belong_to(self, archive: str) -> None:
        """Remember durably which archive the slot's events go to.

        Args:
            archive: Its identity.

        Raises:
            SpoolError: The disk refused; nothing has changed.
        """
        async with self._turn:
            try:
                await shield_until_done(self._remember(replace(self._identity, archive=archive), executor=self._thread))
            except OSError as error:
                raise SpoolError(f"slot {self._slot.number} cannot be written: {error.strerror}") from None

    def on_durable(self, call: Callable[[], None]) -> None:
        """Have somebody called whenever more is durable.

        Args:
            call: The shipper's wake-up.
        """
        self._on_durable = call

    @property
    def limit_bytes(self) -> int:
        """The most that could ever fit: the smaller one of budget and ring."""
        return min(self._limits)

    def fits(self, size_bytes: int, *, lines: int = 1, reserve: bool) -> bool:
        """Tell whether lines could be appended now.

        Args:
            size_bytes: Their bytes together.
            lines: How many they are.
            reserve: Whether they may use what is kept for feedback.

        Returns:
            True if the budget and the ring have room for all of them.
        """
        log_bytes, ring_bytes = self._limits if reserve else self._served_limits
        size_bytes += 32 * lines
        return (
            self._journal_bytes + self._pending_bytes + size_bytes <= log_bytes
            # Twice: before it wraps the ring may leave as much unused as a record takes.
            and self._ring.used_bytes + 2 * size_bytes <= ring_bytes
        )

    def append(self, line: bytes) -> None:
        """Take an event; from now on it survives the process. The caller has asked `fits`.

        Args:
            line: The event, encoded with our producer id, epoch and `next_seq`.

        Raises:
            SpoolError: The caller has not.
        """
        self._append(line)
        if self._timer is None:
            self._set_timer()
        elif self._fresh_bytes >= _COMMIT_BYTES or time.monotonic() >= self._late_at_s:
            self._wake.set()

    def _append(self, line: bytes) -> None:
        record = frame(self.next_seq, line)
        if not self._ring.append(record):
            raise SpoolError(f"the ring of slot {self._slot.number} was given more than it has room for")
        self._hit("spool.ringed")
        self._records.append(record)
        size_bytes = len(record)
        self._records_bytes += size_bytes
        self._pending_bytes += size_bytes
        self._fresh_bytes += size_bytes
        self.next_seq += 1

    def when_durable(self) -> "asyncio.Future[bool]":
        """Ask to be told when everything appended until now is durable.

        Returns:
            What will be True, or False if the disk refused; it will be tried again, but they need not wait for that.
        """
        waiter = _Waiter(self.next_seq - 1, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._wake.set()
        return waiter.done

    async def run(self) -> None:
        """Commit whenever it is time, until cancelled."""
        # What was carried over from an earlier process has no timer.
        self._wake.set()
        while True:
            await self._wake.wait()
            if self.refuses:
                await asyncio.sleep(max(0.0, self._retry_at_s - time.monotonic()))
            await shield_until_done(self.commit())

    async def commit(self) -> None:
        """Make durable what is pending; a disk that refuses is told to those who wait."""
        async with self._turn:
            commit = self._take_pending()
            if commit is None:
                return
            try:
                await self._write(self.producer_id, self.epoch, commit.first_seq, commit.records, executor=self._thread)
            except Exception as error:  # noqa: BLE001 - whatever stopped it, nothing of it counts
                self._failed(error)
            else:
                self._committed(commit)

    def _take_pending(self) -> _Commit | None:
        self._wake.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fresh_bytes = 0
        records = self._records[self._durable_seq + 1 - self._records_first :]
        return _Commit(self._durable_seq + 1, records, self._pending_bytes, self._ring.head) if records else None

    def _committed(self, commit: _Commit) -> None:
        self._durable_seq += len(commit.records)
        self._last_durable = Position(self.epoch, self._durable_seq)
        self._pending_bytes -= commit.size_bytes
        self._weigh()
        self._retry_at_s = 0.0
        if self._failing:
            self._failing = False
            notify(self._observer, DiskRecovered())
        self._ring.release(commit.place, self._durable_seq)
        self._forget_records()
        while self._waiters and self._waiters[0].last_seq <= self._durable_seq:
            _answer(self._waiters.pop(0), durable=True)
        if self.next_seq - 1 > self._durable_seq:
            # They came during the write: feedback among them waits already.
            self._wake_for_pending()
        self._on_durable()

    def _wake_for_pending(self) -> None:
        if self._waiters:
            self._wake.set()
        elif self._timer is None:
            self._set_timer()

    def _set_timer(self) -> None:
        interval_s = self._settings.commit_interval_s
        self._timer = asyncio.get_running_loop().call_later(interval_s, self._wake.set)
        self._late_at_s = time.monotonic() + _LATE * interval_s

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            notify(self._observer, DiskFailed(f"{type(error).__name__}: {error}"))
        self._retry_at_s = time.monotonic() + _RETRY_S
        refused, self._waiters = self._waiters, []
        for waiter in refused:
            _answer(waiter, durable=False)
        self._wake_for_pending()

    def _weigh(self) -> None:
        """Take over what the journal holds now; in the loop's thread, so that all sums change at once."""
        self._journal_bytes, self._journal_events = self._journal.size_bytes, self._journal.events

    def _forget_records(self) -> None:
        """Keep of the durable records only what the shipper soon wants."""
        if self._records_bytes <= 2 * _RECENT_BYTES:
            return
        count = 0
        while self._records_bytes > _RECENT_BYTES and self._records_first + count <= self._durable_seq:
            self._records_bytes -= len(self._records[count])
            count += 1
        del self._records[:count]
        self._records_first += count

    async def read(self, after: Position, max_lines: int, max_bytes: int) -> Run | None:
        """Read what is durable and follows a place.

        Args:
            after: The place.
            max_lines: The most lines.
            max_bytes: The most bytes; the first line comes even if it is longer.

        Returns:
            A dense run of lines of one epoch, which begins later than `after` + 1 only where damage lost events; None
            if nothing follows.

        Raises:
            SpoolError: A segment cannot be read.
        """
        if after >= self._last_durable:
            return None
        if after.epoch == self.epoch and after.seq + 1 >= self._records_first:
            return self._read_recent(after.seq + 1, max_lines, max_bytes)
        async with self._turn:
            try:
                return await shield_until_done(self._read(after, max_lines, max_bytes, executor=self._thread))
            except OSError as error:
                raise SpoolError(f"the spool cannot be read: {error.strerror}") from None

    def _read_recent(self, seq: int, max_lines: int, max_bytes: int) -> Run:
        start = seq - self._records_first
        records = self._records[start : start + min(max_lines, self._durable_seq - seq + 1)]
        lines: list[bytes] = []
        size_bytes = 0
        for record in records:
            size_bytes += len(record)
            if size_bytes > max_bytes and lines:
                break
            lines.append(line_of(record))
        return Run(self.epoch, seq, lines)

    async def release(self, through: Position) -> int:
        """Forget segments that the archive has.

        Args:
            through: The archive's watermark.

        Returns:
            How many events were released; they go by whole segments.
        """
        segments = self._journal.segments
        if not segments or segments[0].last > through:
            return 0
        # A small budget cannot wait until the segment that is being written is old.
        rotate = 2 * self.held_bytes > self._settings.spool_bytes
        async with self._turn:
            try:
                count: int = await shield_until_done(self._release(through, rotate=rotate, executor=self._thread))
            except OSError:
                # They are there still, and it will be tried again.
                count = 0
            self._weigh()
            return count

    def move(self, producer: str, epoch: int, after: Position) -> int:
        """Number everything beyond a place anew, under another identity. Blocks until it is durable.

        What lies at or before the place is in a stream that is not ours to write to any more, and is left to it.
        The caller holds `exclusive`.

        Args:
            producer: The new producer id, or the same one.
            epoch: Its epoch, higher than any of the same producer.
            after: The last place that the old stream is known to have.

        Returns:
            How many events were left to the old stream.

        Raises:
            SpoolError: The disk refused; the identity is as it was.
        """
        identity, journal = self._identity, self._journal
        try:
            pending = self._take_pending()
            if pending is not None:
                journal.write(identity.producer, self.epoch, pending.first_seq, pending.records)
                self._committed(pending)
            journal.abandon()
            # Another producer's stream is not for what is ours until now. A segment that only ends beyond the place
            # keeps what the archive may still lack of it.
            stays = [one for one in journal.segments if one.first <= after and producer == identity.producer]
            old = [one for one in journal.segments if one not in stays]
            headers = {segment.header for segment in old}
            held = sum(segment.last_seq - segment.header.first_seq + 1 for segment in old)
            held += sum(one.last_seq - after.seq for one in stays if one.last > after)
            self._slot.remember(replace(identity, moving=(producer, epoch)))
            moved = self._copy(producer, epoch, after)
            names = (*journal.void, *(segment.path.name for segment in old))
            ended = identity.with_ended(identity.producer, self.epoch, self._durable_seq).with_moved(after)
            self._slot.remember(replace(ended, producer=producer, epoch=epoch, clean=False, replaced=names))
        except OSError as error:
            journal.forget(producer, epoch)
            self._wake_for_pending()
            raise SpoolError(f"slot {self._slot.number} cannot take another identity: {error.strerror}") from None
        for one in stays:
            one.last_seq = min(one.last_seq, after.seq) if one.header.epoch == after.epoch else one.last_seq
        # From here on the new segments are the true ones; if the old ones cannot be removed, the next start does that.
        with suppress(OSError):
            journal.retire(lambda header: header in headers)
        self._ring.reset(epoch, moved)
        self._begin(producer, epoch, moved + 1)
        self._last_durable = journal.last
        return held - moved

    def _copy(self, producer: str, epoch: int, after: Position) -> int:
        """Write what follows a place under a new identity; returns the last new number."""
        journal = self._journal
        seq, place, last = 0, after, self._last_durable
        while place < last:
            run = journal.read(place, _MOVE_LINES, _MOVE_BYTES)
            if run is None or run.last > last:
                # What is left is damaged, or new already.
                break
            records = [
                frame(number, renumber(line, producer, epoch, number)) for number, line in enumerate(run.lines, seq + 1)
            ]
            journal.write(producer, epoch, seq + 1, records)
            seq, place = seq + len(records), run.last
        return seq

    @property
    def exclusive(self) -> asyncio.Lock:
        """Held while nothing else may touch the disk."""
        return self._turn

    async def seal(self) -> None:
        """Write nothing more to the current segment, so that it goes as soon as the archive has it."""
        async with self._turn:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._journal.abandon)

    def rest(self) -> None:
        """Stop the timer of the next commit; in the loop's thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def drops(self) -> dict[int, Dropped]:
        """Return the drops that no gap record tells of yet, by kind of drop."""
        return self._ring.drops()

    def note_drop(self, kind: int, dropped: Dropped) -> None:
        """Remember a kind's drops so that they survive the process."""
        self._ring.note_drop(kind, dropped)

    def close(self, *, clean: bool) -> None:
        """Stop writing and give the slot back.

        Args:
            clean: Whether everything got out.
        """
        self.rest()
        self._thread.shutdown()
        self._journal.abandon()
        try:
            ended = self._identity.with_ended(self.producer_id, self.epoch, self._durable_seq)
            self._slot.remember(replace(ended, clean=clean))
        except OSError:
            # It will be an unclean start, which is true.
            pass
        finally:
            self._ring.close()
            self._slot.close()


def _answer(waiter: _Waiter, *, durable: bool) -> None:
    if not waiter.done.done():
        waiter.done.set_result(durable)
