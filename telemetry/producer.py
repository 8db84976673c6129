"""One replica's telemetry: the door that cannot wait, and everything behind it.

Invariants:

- `offer` is synchronous and total: it never raises, never blocks and never fails a request.
- offered = accepted + refused + dropped for each class; an event is numbered and encoded the moment it is
  accepted, and only then.
- What is dropped is recorded: a `gap` note of the same count follows as soon as there is room.
- Feedback is refused last: served events and notes stop at their share of the budget, feedback at all of it.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

from telemetry.buffer import EventBuffer
from telemetry.counters import ClassCounters, ProducerCounters
from telemetry.errors import BadEventError, SpoolFull
from telemetry.events import Feedback, Served, System, SystemKind, encode
from telemetry.ids import rfc3339_ms, uuid7
from telemetry.notes import Dropped, ProducerObserver, tell
from telemetry.settings import ProducerSettings
from telemetry.shipper import Shipper
from telemetry.slot import Slot
from telemetry.stream import EventStream

_NO_BUDGET = "no budget"
_NOT_JSON = "not json"
# A gap note waits for this much room, or an eighth of a small budget: noting every single drop at the brink
# would fill the buffer with notes.
_GAP_ROOM_BYTES = 64 * 1024


class Offered(Enum):
    """What became of an offered event."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An answer to feedback: how many events were taken, and what they survive."""

    accepted: int
    durability: Literal["memory"]


@dataclass(slots=True)
class _Gap:
    count: int
    from_seq: int


class Producer:
    """One replica's telemetry: its slot, its log of events not yet archived, and the shipper.

    Call everything from the event loop's thread. The order of stopping: end the requests, cancel `run`,
    `drain`, `close`.
    """

    def __init__(
        self, slot: Slot, settings: ProducerSettings, stream: EventStream, observer: ProducerObserver | None
    ) -> None:
        self._slot = slot
        self._settings = settings
        self._observer = observer
        self._buffer = EventBuffer(settings.buffer_bytes, settings.served_share)
        self._counters = ProducerCounters()
        self._shipper = Shipper(slot, self._buffer, stream, settings, self._counters, observer, self._record_gaps)
        # Drops of served events that are not recorded yet, by reason.
        self._gaps: dict[str, _Gap] = {}
        self._closed = False
        self._draining = False
        self._run: asyncio.Task[None] | None = None
        if not slot.was_clean:
            self._note("unclean_start")

    def __repr__(self) -> str:
        return f"<Producer slot={self.slot} {self.producer_id} epoch={self.epoch} {self._buffer!r}>"

    @classmethod
    def open(
        cls,
        spool: Path,
        slot: int | None,
        settings: ProducerSettings,
        stream: EventStream,
        observer: ProducerObserver | None = None,
    ) -> "Producer":
        """Take a slot and begin its next epoch.

        Args:
            spool: The directory of all slots.
            slot: Which one, or None for the lowest free one.
            settings: Limits and pauses.
            stream: Where the events go; this producer's alone, not connected yet.
            observer: Told of outages, rewinds, drops and new identities.

        Returns:
            The producer; events may be offered at once.

        Raises:
            SlotTakenError: Another process holds the slot.
            SpoolError: The slot's directory cannot be used.
        """
        return cls(Slot.open(spool, slot), settings, stream, observer)

    @property
    def producer_id(self) -> str:
        """The id its events carry."""
        return self._slot.producer_id

    @property
    def epoch(self) -> int:
        """The epoch its events carry."""
        return self._slot.epoch

    @property
    def slot(self) -> int:
        """The slot's number."""
        return self._slot.number

    @property
    def counters(self) -> ProducerCounters:
        """Every number of this producer, brought up to date."""
        self._counters.buffered_events = self._buffer.held
        self._counters.buffered_bytes = self._buffer.held_bytes
        return self._counters

    def offer(self, event: Served | Feedback) -> Offered:
        """Take an event if there is room; total, and it never raises.

        Args:
            event: What was served, or what a user did.

        Returns:
            ACCEPTED; or REFUSED for feedback and DROPPED for a served event, when there is no room or
            the event cannot be written as JSON. A drop is recorded in a gap note.
        """
        served = isinstance(event, Served)
        counters = self._counters.served if served else self._counters.feedback
        counters.offered += 1
        if self._gaps:
            self._record_gaps()
        buffer = self._buffer
        try:
            line = encode(event, self._slot.producer_id, self._slot.epoch, buffer.next_seq)
        except BadEventError:
            return self._turn_away(counters, _NOT_JSON, served=served)
        if self._closed or not buffer.fits(len(line), reserve=not served):
            return self._turn_away(counters, _NO_BUDGET, served=served)
        buffer.append(line)
        counters.accepted += 1
        self._shipper.wake()
        return Offered.ACCEPTED

    async def accept(self, events: Sequence[Feedback]) -> Acceptance:
        """Take a client's feedback, all of it or nothing.

        Args:
            events: Checked events, in the client's order.

        Returns:
            What may be answered with 202.

        Raises:
            SpoolFull: There is no room for all of them; nothing was taken.
            BadEventError: One cannot be written as JSON; nothing was taken.
        """
        buffer = self._buffer
        counters = self._counters.feedback
        counters.offered += len(events)
        if self._gaps:
            self._record_gaps()
        producer_id, epoch = self._slot.producer_id, self._slot.epoch
        try:
            lines = [encode(event, producer_id, epoch, seq) for seq, event in enumerate(events, buffer.next_seq)]
        except BadEventError:
            counters.refused += len(events)
            raise
        if self._closed or not buffer.fits(sum(map(len, lines)), lines=len(lines), reserve=True):
            counters.refused += len(events)
            raise SpoolFull(
                f"slot {self.slot} has no room for {len(lines)} more events until older ones are archived",
                self._settings.retry_after_s,
            )
        for line in lines:
            buffer.append(line)
        counters.accepted += len(lines)
        self._shipper.wake()
        return Acceptance(len(lines), "memory")

    async def run(self) -> None:
        """Ship until cancelled; survives any failure of the stream. Returns at once after `drain`."""
        if self._draining:
            return
        self._run = asyncio.current_task()
        await self._shipper.run()

    async def drain(self, deadline_s: float) -> int:
        """Ship what is left; ends `run` if that has not been done.

        Args:
            deadline_s: How long to try.

        Returns:
            How many events did not get out.
        """
        # Two shippers on one stream would break its order; a `run` that has not had its first turn counts too.
        self._draining = True
        if self._run is not None and not self._run.done():
            self._run.cancel()
            await asyncio.wait([self._run])
        self._record_gaps()
        return await self._shipper.drain(deadline_s)

    def close(self) -> None:
        """Give the slot back; what is offered from now on is refused or dropped."""
        self._closed = True
        self._slot.close(clean=self._shipper.pending == 0 and not self._gaps)

    def _turn_away(self, counters: ClassCounters, reason: str, *, served: bool) -> Offered:
        if not served:
            counters.refused += 1
            return Offered.REFUSED
        counters.dropped += 1
        self._gaps.setdefault(reason, _Gap(0, self._buffer.next_seq - 1)).count += 1
        return Offered.DROPPED

    def _record_gaps(self) -> None:
        if not self._buffer.fits(min(_GAP_ROOM_BYTES, self._settings.buffer_bytes // 8), reserve=False):
            return
        for reason, gap in list(self._gaps.items()):
            if not self._note("gap", reason=reason, gap=gap):
                return
            del self._gaps[reason]
            tell(self._observer, Dropped(gap.count, reason))

    def _note(self, kind: SystemKind, *, reason: str | None = None, gap: _Gap | None = None) -> bool:
        """Record something about ourselves, if there is room for it."""
        buffer = self._buffer
        note = System(
            event_id=uuid7(),
            tenant="default",
            client_time=None,
            received_at=rfc3339_ms(time.time()),
            kind=kind,
            of_class="served" if gap else None,
            count=gap.count if gap else None,
            reason=reason,
            from_seq=gap.from_seq if gap else None,
            to_seq=buffer.next_seq - 1 if gap else None,
        )
        line = encode(note, self._slot.producer_id, self._slot.epoch, buffer.next_seq)
        if self._closed or not buffer.fits(len(line), reserve=False):
            return False
        buffer.append(line)
        self._counters.system.offered += 1
        self._counters.system.accepted += 1
        self._shipper.wake()
        return True
