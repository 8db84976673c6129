"""The subscription: which streams the consumer reads, how, and which wait for their producers.

Invariant: a stream is read through its group, pending list first, or, where a full Redis has no room for the group,
from the watermark on; entries are then in order and complete, or there is a gap. A stream with a gap is not read until
it was removed and begun again. The ends of a stream that delivers nothing are read: entries lost there show nowhere
else.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Final

from telemetry.batch import Position
from telemetry.consumer.context import ConsumerContext
from telemetry.consumer.stream_gaps import StreamGaps
from telemetry.errors import StreamRefusedError
from telemetry.notes import StreamGapFound, StreamGapKept
from telemetry.stream.event_stream import EventStream, publish_watermarks

# A producer registers a moment before its stream begins.
NEW_STREAM_POLL_S: Final = 0.1
_START: Final = Position(0, 0)


class Subscription:
    """The streams of all producers, as one consumer reads them.

    Attributes:
        joined: Producers that are read through their group.
        groupless: Producers that are read without one.
        recheck: Those of `joined` whose pending list is to be read.
        own_pending: Producers whose pending list holds only entries delivered to this consumer.
        busy: Producers that delivered something since the last refresh.
    """

    def __init__(self, stream: EventStream, context: ConsumerContext) -> None:
        self._stream = stream
        self._context = context
        self._gaps = StreamGaps(context.settings.gap_patience_s)
        self._handshakes: Mapping[str, float] = {}
        self._next_refresh_s = 0.0
        self._full = False
        self._last_refusal = ""
        self.joined: set[str] = set()
        self.groupless: set[str] = set()
        self.recheck: set[str] = set()
        self.own_pending: set[str] = set()
        self.busy: set[str] = set()

    @property
    def refresh_due(self) -> bool:
        """Whether it is time to refresh."""
        return time.monotonic() >= self._next_refresh_s

    def refresh_soon(self) -> None:
        """Have the next round refresh."""
        self._next_refresh_s = 0.0

    def reconnected(self) -> None:
        """Create groups and read pending lists again after a new connection: it may lead to another Redis."""
        self.joined.clear()
        self.groupless.clear()
        self.recheck.clear()
        self.refresh_soon()

    def resends(self, producer: str, at: Position) -> int:
        """Return how often a producer was asked to send again from a watermark, as `StreamGaps.resends`."""
        return self._gaps.resends(producer, at)

    def set_full(self, *, full: bool) -> None:
        """Note whether Redis has no room for watermarks."""
        self._full = full

    async def refresh(self, watermarks: Mapping[str, Position]) -> None:
        """Find new streams, remove those with a gap, and publish the watermarks; producers begin removed ones again."""
        self._handshakes = handshakes = await self._stream.producers()
        await self._remove_streams_with_gaps()
        unread = [name for name in handshakes if name not in self.joined and name not in self._gaps.open]
        groups = await self._stream.ensure_groups(unread)
        self.joined |= groups.ready
        self.recheck |= groups.ready
        self.groupless = groups.unknown
        self.add_gaps({name: watermarks.get(name, _START) for name in groups.wrong_type})
        await self._check_ends(watermarks)
        waiting = any(name not in self.joined and name not in self._gaps.open for name in handshakes)
        pause_s = NEW_STREAM_POLL_S if waiting else self._context.settings.discover_interval_s
        self._next_refresh_s = time.monotonic() + pause_s
        known = {name: watermarks[name] for name in handshakes if name in watermarks}
        self._full = not await publish_watermarks(self._stream, known) or bool(self.groupless)
        self._context.counters.producers = len(handshakes)

    def add_gaps(self, gaps: Mapping[str, Position], linked: Iterable[str] = ()) -> None:
        """Stop reading streams with a gap.

        Args:
            gaps: By producer: the watermark before the gap.
        """
        self._gaps.mark_linked(linked)
        for producer, at in gaps.items():
            self.joined.discard(producer)
            self.groupless.discard(producer)
            self.recheck.discard(producer)
            if self._gaps.add(producer, at, self._handshakes.get(producer), time.monotonic()):
                self._context.counters.gaps += 1
                self._context.notify(StreamGapFound(producer, str(at)))

    async def _remove_streams_with_gaps(self) -> None:
        due = self._gaps.streams_to_remove(self._handshakes, full=self._full, now_s=time.monotonic())
        if not due:
            return
        self._context.failpoints.hit("gap.due")
        try:
            await self._stream.remove_streams(due)
        except StreamRefusedError as error:
            # Other streams are read on; without this right the lost entries cannot be sent again.
            if str(error) != self._last_refusal:
                self._last_refusal = str(error)
                self._context.notify(StreamGapKept(str(error)))
            return
        self._context.failpoints.hit("gap.removed")
        self._last_refusal = ""
        self._gaps.streams_removed(due)

    async def _check_ends(self, watermarks: Mapping[str, Position]) -> None:
        idle = sorted((self.joined | self.groupless) - self.busy - self.recheck)
        self.busy.clear()
        lost = {}
        for name, ends in (await self._stream.stream_ends(idle)).items():
            at = watermarks.get(name, _START)
            if max(at, ends.kept or _START) < ends.last and not self._gaps.is_written_off(name, at):
                lost[name] = at
        self.add_gaps(lost)
