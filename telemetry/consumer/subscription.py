"""Which streams the consumer reads, how, and which wait for their producers.

Invariants:

- A stream is read only from its group, whose pending list comes first; or, where a full Redis has no room for the
  group, directly from the watermark on. Either way what comes is in order and complete from there, or a gap.
- A stream with a gap is not read until it was removed and begun anew (`gaps.py`).
- A stream that does not deliver is asked for its ends: what Redis lost at the end of it shows nowhere else.
"""

import time
from collections.abc import Callable, Iterable, Mapping

from telemetry.batch import Position
from telemetry.consumer.stream_gaps import StreamGaps
from telemetry.counters import ConsumerCounters
from telemetry.errors import StreamRefusedError
from telemetry.notes import ConsumerObserver, StreamGapFound, StreamGapKept, notify
from telemetry.settings import ConsumerSettings
from telemetry.stream.event_stream import EventStream, publish_watermarks

# A producer announces itself a moment before its stream begins.
IMPATIENT_S = 0.1
_START = Position(0, 0)


class Subscription:
    """The streams of all producers, as one consumer sees them.

    Args:
        stream: The reading end.
        settings: Pauses.
        counters: Kept up to date here.
        observer: Told of gaps.
        hit: Called with the names of failpoints.

    Attributes:
        joined: Producers that are read through their group.
        bare: Producers that are read without one.
        recheck: Those of `joined` whose pending list is to be read.
        ours: Producers whose pending list holds nothing of before our lease.
        busy: Producers that delivered something since the last look.
    """

    def __init__(
        self,
        stream: EventStream,
        settings: ConsumerSettings,
        counters: ConsumerCounters,
        observer: ConsumerObserver | None,
        hit: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._stream = stream
        self._settings = settings
        self._counters = counters
        self._observer = observer
        self._hit = hit
        self._gaps = StreamGaps(settings.gap_patience_s)
        self._scores: Mapping[str, float] = {}
        self._next_look_s = 0.0
        self._full = False
        self._refusal = ""
        self.joined: set[str] = set()
        self.bare: set[str] = set()
        self.recheck: set[str] = set()
        self.ours: set[str] = set()
        self.busy: set[str] = set()

    @property
    def due(self) -> bool:
        """Whether it is time to look again."""
        return time.monotonic() >= self._next_look_s

    def look_now(self) -> None:
        """Have the next round look."""
        self._next_look_s = 0.0

    def reconnected(self) -> None:
        """Redis may be another one now: groups are made again, and the pending lists read first."""
        self.joined.clear()
        self.bare.clear()
        self.recheck.clear()
        self.look_now()

    def asked(self, producer: str, at: Position) -> int:
        """See `StreamGaps.asked`."""
        return self._gaps.asked(producer, at)

    def was_full(self, *, full: bool) -> None:
        """Note whether Redis had room for the watermarks."""
        self._full = full

    async def look(self, watermarks: Mapping[str, Position]) -> None:
        """Find new streams, have those with a gap begun anew, and publish the watermarks.

        Args:
            watermarks: How far each producer is archived.

        Raises:
            StreamError: Redis does not answer, or refuses.
        """
        self._scores = scores = await self._stream.producers()
        await self._remove_broken()
        wanted = [name for name in scores if name not in self.joined and name not in self._gaps.open]
        found = await self._stream.ensure_groups(wanted)
        self.joined |= found.ready
        self.recheck |= found.ready
        self.bare = found.unknown
        self.found({name: watermarks.get(name, _START) for name in found.wrong_type})
        await self._look_at_ends(watermarks)
        waiting = any(name not in self.joined and name not in self._gaps.open for name in scores)
        self._next_look_s = time.monotonic() + (IMPATIENT_S if waiting else self._settings.discover_interval_s)
        known = {name: watermarks[name] for name in scores if name in watermarks}
        self._full = not await publish_watermarks(self._stream, known) or bool(self.bare)
        self._counters.producers = len(scores)

    def found(self, gaps: Mapping[str, Position], linked: Iterable[str] = ()) -> None:
        """Read streams with a gap no further.

        Args:
            gaps: By producer: the watermark before the gap.
            linked: See `StreamGaps.linked`.
        """
        self._gaps.linked(linked)
        for producer, at in gaps.items():
            self.joined.discard(producer)
            self.bare.discard(producer)
            self.recheck.discard(producer)
            if self._gaps.found(producer, at, self._scores.get(producer), time.monotonic()):
                self._counters.gaps += 1
                notify(self._observer, StreamGapFound(producer, str(at)))

    async def _remove_broken(self) -> None:
        due = self._gaps.due(self._scores, full=self._full, now_s=time.monotonic())
        if not due:
            return
        self._hit("gap.due")
        try:
            await self._stream.remove_streams(due)
        except StreamRefusedError as error:
            # The others are read on; without this right what Redis lost cannot be sent again.
            if str(error) != self._refusal:
                self._refusal = str(error)
                notify(self._observer, StreamGapKept(str(error)))
            return
        self._hit("gap.removed")
        self._refusal = ""
        self._gaps.removed(due)

    async def _look_at_ends(self, watermarks: Mapping[str, Position]) -> None:
        idle = sorted((self.joined | self.bare) - self.busy - self.recheck)
        self.busy.clear()
        lost = {}
        for name, ends in (await self._stream.stream_ends(idle)).items():
            at = watermarks.get(name, _START)
            if max(at, ends.kept or _START) < ends.last and not self._gaps.is_written_off(name, at):
                lost[name] = at
        self.found(lost)
