r"""One replica's telemetry: accepts events without waiting, and owns the write-ahead log and the shipper.

Invariants:

- `offer` is synchronous and total: it never raises, blocks or fails a request. After ACCEPTED the event survives
  `kill -9`.
- Events that `accept` returns for survive a power cut. Events it raises for were not accepted, or the disk did not
  confirm them.
- offered = accepted + refused + dropped for each class. An event is numbered and encoded when it is accepted.
- A drop or refusal is counted in the ring at once, and a gap record of the same count follows once there is room.
- Feedback is refused last: served and system events may fill a share of the budget, feedback all of it.

    [RECEIVED] --> [REFUSED] feedback, no room or a failing disk: 503, counted
        |      \-> [DROPPED] served list, no room: counted
        +--> [RINGED] --> ... (wal/spool.py) --> [DURABLE] --> 202
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

from telemetry.batch import EventPosition, Position
from telemetry.counters import ProducerCounters
from telemetry.errors import BadEventError, EventsRefusedError
from telemetry.events import Event, Feedback, Served, System, SystemKind, encode
from telemetry.ids import rfc3339_ms, uuid7
from telemetry.notes import Dropped, Observer, notify
from telemetry.settings import ProducerSettings
from telemetry.shipper import Shipper
from telemetry.stream.event_stream import EventStream
from telemetry.wal.drops import DISK, DROP_KINDS, NO_BUDGET, NOT_JSON, DropCount, DropKind
from telemetry.wal.slot import Slot
from telemetry.wal.spool import Spool

# Gap records wait for this much room, or an eighth of a small budget: a record for every single drop would fill the
# last of it.
_GAP_ROOM_BYTES = 64 * 1024
# How long a replica waits for its slot, which an inspection or the shipping of orphans holds for a moment.
_PATIENCE_S = 2.0


class Offered(Enum):
    """The result of an offer."""

    ACCEPTED = "accepted"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The answer to feedback: how many events were accepted, and where they are durable."""

    accepted: int
    durability: Literal["disk"] = "disk"


class Producer:
    """One replica's telemetry: opens a slot, recovers it and begins its next epoch.

    Call everything in the event loop's thread. To stop: end the requests, cancel `run`, `drain`, `close`.

    Args:
        spool: The directory of all slots.
        slot: The slot's number; None for the lowest free one.
        settings: Limits and pauses.
        stream: Where the events go; not connected yet, and used by this producer alone.
        observer: Notified of outages, rewinds, drops and new identities.
        hit: Called with the names of failpoints.
        archive: The archive of this installation, if it is known.

    Attributes:
        slot: The slot's number.

    Raises:
        SlotTakenError: Another process holds the slot.
        SpoolError: The slot's directory cannot be used.
    """

    def __init__(
        self,
        spool: Path,
        slot: int | None,
        settings: ProducerSettings,
        stream: EventStream,
        observer: Observer | None = None,
        hit: Callable[[str], None] = lambda _name: None,
        archive: str | None = None,
    ) -> None:
        held = Slot.open(spool, slot, patience_s=_PATIENCE_S)
        try:
            self._spool = Spool(held, settings, hit=hit, observer=observer)
        except BaseException:
            held.close()
            raise
        self.slot = held.number
        self._settings = settings
        self._observer = observer
        self._counters = ProducerCounters(recovered=self._spool.recovered)
        self._shipper = Shipper(
            self._spool,
            stream,
            settings,
            self._counters,
            observer,
            on_release=self._record_gaps,
            hit=hit,
            archive=archive,
        )
        self._drops = self._spool.drops
        self._closed = False
        self._draining = False
        self._run: asyncio.Task[None] | None = None
        # The record of an unclean start needs an event loop, so `run` writes it.
        self._unclean_start = not self._spool.was_clean

    def __repr__(self) -> str:
        return f"<Producer slot={self.slot} {self._spool!r}>"

    @property
    def producer_id(self) -> str:
        """The producer id of new events."""
        return self._spool.producer_id

    @property
    def epoch(self) -> int:
        """The epoch of new events."""
        return self._spool.epoch

    @property
    def archive(self) -> str | None:
        """The archive that its events go to; None if that is not known yet."""
        return self._shipper.archive

    @property
    def archived(self) -> Position:
        """The position up to which the archive is known to have its events."""
        return self._shipper.archived

    @property
    def owns_namespace(self) -> bool:
        """Whether the namespace in Redis was this installation's when it was last asked; False before that."""
        return self._shipper.owns_namespace

    @property
    def counters(self) -> ProducerCounters:
        """The counters, up to date."""
        self._counters.unarchived_events = self._shipper.unarchived
        self._counters.spooled_events = self._spool.held
        self._counters.spooled_bytes = self._spool.held_bytes
        return self._counters

    def offer(self, event: Served) -> Offered:
        """Accept a served list if there is room; never raises.

        Returns:
            ACCEPTED; DROPPED if there is no room or it cannot be written as JSON. A gap record counts the drop.
        """
        counters, spool = self._counters.served, self._spool
        counters.offered += 1
        if self._drops.counts:
            self._record_gaps()
        try:
            line = encode(event, spool.producer_id, spool.epoch, spool.next_seq)
        except BadEventError:
            return self._drop(NOT_JSON)
        if self._closed or not spool.has_room(len(line), reserve=False):
            return self._drop(NO_BUDGET)
        spool.append(line)
        counters.accepted += 1
        return Offered.ACCEPTED

    async def accept(
        self, events: Sequence[Event], appended: Callable[[EventPosition], None] = lambda _first: None
    ) -> Acceptance:
        """Accept a client's feedback, or other events, all or none; returns once they are on the disk.

        Args:
            events: The events.
            appended: Called with the position of the first event once all have one, in this order, before they are on
                the disk. From then on they will be archived, even if the disk is too slow for this call.

        Raises:
            EventsRefusedError: There is no room for all of them, or the disk refused a moment ago: none was accepted.
                Or the disk refused them, or was too slow: they may still be archived, once, and are deduplicated if
                they are sent again.
            BadEventError: One cannot be written as JSON; none was accepted.
        """
        spool = self._spool
        for event in events:
            self._counters.for_class_of(event).offered += 1
        if self._drops.counts:
            self._record_gaps()
        try:
            lines = [
                encode(event, spool.producer_id, spool.epoch, seq) for seq, event in enumerate(events, spool.next_seq)
            ]
        except BadEventError:
            self._refuse(events, NOT_JSON)
            raise
        if self._closed or not spool.has_room(sum(map(len, lines)), lines=len(lines), reserve=True):
            self._refuse(events, NO_BUDGET)
            raise self._refusal(
                f"Slot {self.slot} has no room for {len(lines)} more events until older ones are archived."
            )
        if spool.schedule.is_holding_back:
            self._refuse(events, DISK)
            raise self._refusal(f"The disk of slot {self.slot} refused a moment ago.")
        first = EventPosition(spool.producer_id, spool.epoch, spool.next_seq)
        for line in lines:
            spool.append(line)
        for event in events:
            self._counters.for_class_of(event).accepted += 1
        appended(first)
        durable = spool.when_durable()
        if not (await asyncio.wait([durable], timeout=self._settings.accept_timeout_s))[0]:
            raise self._refusal(f"The disk of slot {self.slot} took too long.")
        if not durable.result():
            raise self._refusal(f"The disk of slot {self.slot} refused.")
        return Acceptance(len(lines))

    async def run(self) -> None:
        """Commit and ship until cancelled, through any failure of the stream; returns at once after `drain`."""
        if self._draining:
            return
        self._run = asyncio.current_task()
        self._record_unclean_start()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._spool.run(), name="spool")
            group.create_task(self._shipper.run(), name="shipper")

    async def drain(self, deadline_s: float, *, archived: bool = False) -> int:
        """End `run`, then commit and ship the rest until a deadline; with `archived` wait until it is archived, too.

        Returns:
            How many events were not shipped; they stay in the write-ahead log until the next start.
        """
        # Two shippers on one stream would break its order; a `run` that has not had its first turn counts too.
        self._draining = True
        if self._run is not None and not self._run.done():
            self._run.cancel()
            await asyncio.wait([self._run])
        self._record_unclean_start()
        self._record_gaps()
        await self._spool.commit()
        try:
            return await self._shipper.drain(deadline_s, archived=archived)
        finally:
            # `close` may run in another thread, which must not touch the loop's timers.
            self._spool.schedule.cancel_timer()

    def close(self) -> None:
        """Close the slot; later offers are refused or dropped."""
        if not self._closed:
            self._closed = True
            self._spool.close(clean=self._shipper.pending == 0 and not self._drops.counts)

    def _refuse(self, events: Sequence[Event], reason: str) -> None:
        for event in events:
            self._counters.for_class_of(event).refused += 1
        # The archive needs no gap record of refused system events: their caller keeps or repeats them.
        self._count_drop(DropKind("feedback", reason), sum(isinstance(event, Feedback) for event in events))

    def _drop(self, reason: str) -> Offered:
        self._counters.served.dropped += 1
        self._count_drop(DropKind("served", reason), 1)
        return Offered.DROPPED

    def _count_drop(self, drop: DropKind, events: int) -> None:
        if events and not self._closed:
            self._drops.add(drop, events, self._spool.next_seq - 1)

    def _refusal(self, sentence: str) -> EventsRefusedError:
        return EventsRefusedError(sentence, self._settings.retry_after_s)

    def _record_unclean_start(self) -> None:
        if self._unclean_start and self._append_system("unclean_start"):
            self._unclean_start = False

    def _record_gaps(self) -> None:
        if not self._spool.has_room(min(_GAP_ROOM_BYTES, self._spool.limit_bytes // 8), reserve=False):
            return
        for kind, count in list(self._drops.counts.items()):
            if not self._append_system("gap", DROP_KINDS[kind], count):
                return
            # In this order a kill in between counts a drop twice rather than not at all.
            self._drops.remove(kind)
            notify(self._observer, Dropped(count.events, *DROP_KINDS[kind]))

    def _append_system(self, kind: SystemKind, drop: DropKind | None = None, count: DropCount | None = None) -> bool:
        """Append a system event, with a gap's drops; return False if there is no room for it."""
        spool = self._spool
        last_seq = spool.next_seq - 1
        event = System(
            event_id=uuid7(),
            tenant="default",
            client_time=None,
            received_at=rfc3339_ms(time.time()),
            kind=kind,
            of_class=drop.of_class if drop else None,
            count=count.events if count else None,
            reason=drop.reason if drop else None,
            # The count of an earlier process has a number of that process's epoch.
            from_seq=min(count.after_seq, last_seq) if count else None,
            to_seq=last_seq if count else None,
        )
        line = encode(event, spool.producer_id, spool.epoch, spool.next_seq)
        if self._closed or not spool.has_room(len(line), reserve=False):
            return False
        spool.append(line)
        self._counters.system.offered += 1
        self._counters.system.accepted += 1
        return True
