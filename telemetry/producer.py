r"""One replica's telemetry: the door that cannot wait, and everything behind it.

Invariants:

- `offer` is synchronous and total: it never raises, never blocks and never fails a request. When it says ACCEPTED the
  event survives `kill -9`.
- What `accept` returns from survives a power cut; what it raises for was not taken, or the disk did not say that it
  was.
- offered = accepted + refused + dropped for each class; an event is numbered and encoded the moment it is
  taken, and only then.
- What is dropped or refused is recorded: it is counted in the ring at once, and a `gap` note of the same count follows
  as soon as there is room.
- Feedback is refused last: served events and notes stop at their share of the budget, feedback at all of it.

    [RECEIVED] --> [REFUSED] feedback, no room or a bad disk: 503, counted
        |      \-> [DROPPED] served, no room: counted
        +--> [RINGED] --> ... (spool.py) --> [DURABLE] --> 202
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, Literal

from telemetry.batch import Position
from telemetry.counters import ProducerCounters
from telemetry.errors import BadEventError, SpoolFull
from telemetry.events import Event, Feedback, Served, System, SystemKind, encode
from telemetry.ids import rfc3339_ms, uuid7
from telemetry.notes import Dropped, ProducerObserver, notify
from telemetry.settings import ProducerSettings
from telemetry.shipper import Shipper
from telemetry.stream.redis_stream import EventStream
from telemetry.wal.ring import Dropped as Unrecorded
from telemetry.wal.slot import Slot
from telemetry.wal.spool import Spool

_NO_BUDGET = "no budget"
_NOT_JSON = "not json"
_DISK = "disk"
# What is counted in the ring: a kind is a place in this table, which therefore only grows.
DROP_KINDS: Final = (
    ("served", _NO_BUDGET),
    ("served", _NOT_JSON),
    ("feedback", _NO_BUDGET),
    ("feedback", _NOT_JSON),
    ("feedback", _DISK),
)
# A gap note waits for this much room, or an eighth of a small budget or ring: noting every single drop at the brink
# would fill the log with notes.
_GAP_ROOM_BYTES = 64 * 1024
# How long a replica waits for its slot while somebody looks at it or ships what it holds.
_PATIENCE_S = 2.0


class Offered(Enum):
    """What became of an offered event."""

    ACCEPTED = "accepted"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An answer to feedback: how many events were taken, and what they survive."""

    accepted: int
    durability: Literal["disk"] = "disk"


class Producer:
    """One replica's telemetry: its log of events not yet archived, and the shipper.

    Call everything from the event loop's thread. The order of stopping: end the requests, cancel `run`,
    `drain`, `close`.
    """

    def __init__(
        self,
        slot: Slot,
        settings: ProducerSettings,
        stream: EventStream,
        observer: ProducerObserver | None,
        hit: Callable[[str], None] = lambda _name: None,
        archive: str | None = None,
    ) -> None:
        self._slot = slot
        self._settings = settings
        self._observer = observer
        self._counters = ProducerCounters()
        self._spool = Spool(slot, settings, hit=hit, observer=observer)
        self._counters.recovered = self._spool.recovered
        self._shipper = Shipper(
            self._spool, stream, settings, self._counters, observer, self._record_gaps, hit, archive
        )
        # What no gap note tells of yet, by kind; the ring has the same.
        self._gaps = self._spool.drops()
        self._closed = False
        self._draining = False
        self._run: asyncio.Task[None] | None = None
        # A note needs a loop, which the caller need not have yet.
        self._unclean = not self._spool.was_clean

    def __repr__(self) -> str:
        return f"<Producer slot={self.slot} {self._spool!r}>"

    @classmethod
    def open(
        cls,
        spool: Path,
        slot: int | None,
        settings: ProducerSettings,
        stream: EventStream,
        observer: ProducerObserver | None = None,
        hit: Callable[[str], None] = lambda _name: None,
        archive: str | None = None,
    ) -> "Producer":
        """Take a slot, find what an earlier process left in it, and begin its next epoch.

        Args:
            spool: The directory of all slots.
            slot: Which one, or None for the lowest free one.
            settings: Limits and pauses.
            stream: Where the events go; this producer's alone, not connected yet.
            observer: Told of outages, rewinds, drops and new identities.
            hit: Called with the names of failpoints.
            archive: The archive of this installation, if it is known.

        Returns:
            The producer; events may be offered at once.

        Raises:
            SlotTakenError: Another process holds the slot.
            SpoolError: The slot's directory cannot be used.
        """
        held = Slot.open(spool, slot, patience_s=_PATIENCE_S)
        try:
            return cls(held, settings, stream, observer, hit, archive)
        except BaseException:
            held.close()
            raise

    @property
    def producer_id(self) -> str:
        """The id its events carry."""
        return self._spool.producer_id

    @property
    def epoch(self) -> int:
        """The epoch its events carry."""
        return self._spool.epoch

    @property
    def slot(self) -> int:
        """The slot's number."""
        return self._slot.number

    @property
    def archive(self) -> str | None:
        """The archive that its events go to; None if that is not known yet."""
        return self._shipper.archive

    @property
    def archived(self) -> Position:
        """How far the archive is known to have its events."""
        return self._shipper.archived

    @property
    def counters(self) -> ProducerCounters:
        """Every number of this producer, brought up to date."""
        self._counters.unarchived_events = self._shipper.unarchived
        self._counters.spooled_events = self._spool.held
        self._counters.spooled_bytes = self._spool.held_bytes
        return self._counters

    def offer(self, event: Served) -> Offered:
        """Take what was served, if there is room; total, and it never raises.

        Args:
            event: What was served.

        Returns:
            ACCEPTED; or DROPPED when there is no room or it cannot be written as JSON. A drop is recorded in a
            gap note.
        """
        counters, spool = self._counters.served, self._spool
        counters.offered += 1
        if self._gaps:
            self._record_gaps()
        try:
            line = encode(event, spool.producer_id, spool.epoch, spool.next_seq)
        except BadEventError:
            return self._drop(_NOT_JSON)
        if self._closed or not spool.fits(len(line), reserve=False):
            return self._drop(_NO_BUDGET)
        spool.append(line)
        counters.accepted += 1
        return Offered.ACCEPTED

    async def accept(self, events: Sequence[Event]) -> Acceptance:
        """Take events, all of them or none; return once they are on the disk.

        Args:
            events: Checked events, in the client's order.

        Returns:
            What may be answered with 202.

        Raises:
            SpoolFull: There is no room for all of them, or the disk refused a moment ago: nothing was taken. Or the
                disk refused them, or was too slow: they may be archived nevertheless, once, and are removed if they
                come again.
            BadEventError: One cannot be written as JSON; nothing was taken.
        """
        spool = self._spool
        for event in events:
            self._counters.for_class_of(event).offered += 1
        if self._gaps:
            self._record_gaps()
        try:
            lines = [
                encode(event, spool.producer_id, spool.epoch, seq) for seq, event in enumerate(events, spool.next_seq)
            ]
        except BadEventError:
            self._refuse(events, _NOT_JSON)
            raise
        if self._closed or not spool.fits(sum(map(len, lines)), lines=len(lines), reserve=True):
            self._refuse(events, _NO_BUDGET)
            raise self._full(f"slot {self.slot} has no room for {len(lines)} more events until older ones are archived")
        if spool.refuses:
            self._refuse(events, _DISK)
            raise self._full(f"the disk of slot {self.slot} refused a moment ago")
        for line in lines:
            spool.append(line)
        self._take(events)
        durable = spool.when_durable()
        if not (await asyncio.wait([durable], timeout=self._settings.accept_timeout_s))[0]:
            raise self._full(f"the disk of slot {self.slot} took too long")
        if not durable.result():
            raise self._full(f"the disk of slot {self.slot} refused")
        return Acceptance(len(lines))

    async def run(self) -> None:
        """Commit and ship until cancelled; survives any failure of the stream. Returns at once after `drain`."""
        if self._draining:
            return
        self._run = asyncio.current_task()
        self._begin_notes()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._spool.run(), name="spool")
            group.create_task(self._shipper.run(), name="shipper")

    async def drain(self, deadline_s: float, *, archived: bool = False) -> int:
        """Commit and ship what is left; ends `run` if that has not been done.

        Args:
            deadline_s: How long to try.
            archived: Whether to wait until the archive has it, too.

        Returns:
            How many events did not get out; they are in the log, and go out with the next start.
        """
        # Two shippers on one stream would break its order; a `run` that has not had its first turn counts too.
        self._draining = True
        if self._run is not None and not self._run.done():
            self._run.cancel()
            await asyncio.wait([self._run])
        self._begin_notes()
        self._record_gaps()
        await self._spool.commit()
        try:
            return await self._shipper.drain(deadline_s, archived=archived)
        finally:
            # `close` may be called in another thread, where the loop's timers may not be touched.
            self._spool.rest()

    def close(self) -> None:
        """Give the slot back; what is offered from now on is refused or dropped."""
        if not self._closed:
            self._closed = True
            self._spool.close(clean=self._shipper.pending == 0 and not self._gaps)

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            self._counters.for_class_of(event).accepted += 1

    def _refuse(self, events: Sequence[Event], reason: str) -> None:
        for event in events:
            self._counters.for_class_of(event).refused += 1
        # Our own notes and an operator's requests are not the archive's business when they were not taken.
        self._count("feedback", reason, sum(isinstance(event, Feedback) for event in events))

    def _drop(self, reason: str) -> Offered:
        self._counters.served.dropped += 1
        self._count("served", reason, 1)
        return Offered.DROPPED

    def _count(self, of_class: str, reason: str, events: int) -> None:
        if self._closed or not events:
            return
        kind = DROP_KINDS.index((of_class, reason))
        before = self._gaps.get(kind, Unrecorded(0, self._spool.next_seq - 1))
        self._gaps[kind] = before._replace(events=before.events + events)
        self._spool.note_drop(kind, self._gaps[kind])

    def _full(self, sentence: str) -> SpoolFull:
        return SpoolFull(sentence, self._settings.retry_after_s)

    def _begin_notes(self) -> None:
        if self._unclean and self._note("unclean_start"):
            self._unclean = False

    def _record_gaps(self) -> None:
        if not self._spool.fits(min(_GAP_ROOM_BYTES, self._spool.limit_bytes // 8), reserve=False):
            return
        for kind, gap in list(self._gaps.items()):
            if not self._note("gap", kind=kind, gap=gap):
                return
            # In this order a kill in between counts a drop twice rather than not at all.
            del self._gaps[kind]
            self._spool.note_drop(kind, Unrecorded(0, 0))
            notify(self._observer, Dropped(gap.events, *DROP_KINDS[kind]))

    def _note(self, note_kind: SystemKind, *, kind: int = 0, gap: Unrecorded | None = None) -> bool:
        """Record something about ourselves, if there is room for it."""
        spool = self._spool
        of_class, reason = DROP_KINDS[kind] if gap else (None, None)
        note = System(
            event_id=uuid7(),
            tenant="default",
            client_time=None,
            received_at=rfc3339_ms(time.time()),
            kind=note_kind,
            of_class=of_class,
            count=gap.events if gap else None,
            reason=reason,
            # A process that died counted from a number of its own epoch.
            from_seq=min(gap.after_seq, spool.next_seq - 1) if gap else None,
            to_seq=spool.next_seq - 1 if gap else None,
        )
        line = encode(note, spool.producer_id, spool.epoch, spool.next_seq)
        if self._closed or not spool.fits(len(line), reserve=False):
            return False
        spool.append(line)
        self._counters.system.offered += 1
        self._counters.system.accepted += 1
        return True
