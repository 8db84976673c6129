"""Stream gaps: entries that Redis lost while the producer's write-ahead log still holds them.

Invariants: the watermark passes a break only if the producer states that it holds nothing there (a batch's `after`).
A stream with a gap is removed, because Redis accepts no smaller ids than it has seen; the producer then sends again
from the watermark, under the same numbers, so nothing is duplicated. It is removed only after a handshake of its
producer, or if Redis is full, where handshakes leave no trace. Entries without a predecessor (of older versions, or
no batches) are accepted once they were sent again. A gap without a handshake for `patience_s` is written off. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from telemetry.batch import Position

# How often the producer has to send again a batch without predecessor, and an entry that is no batch.
UNLINKED_RESENDS: Final = 1
BROKEN_RESENDS: Final = 3
_WRITTEN_OFF: Final = 1_000_000


@dataclass(slots=True)
class _Gap:
    at: Position
    handshake_s: float | None
    since_s: float


class StreamGaps:
    """The gaps in the streams of all producers.

    Args:
        patience_s: How long a gap may wait for a handshake of its producer.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._open: dict[str, _Gap] = {}
        # By producer: the watermark from which it was asked to send again, and how often.
        self._resends: dict[str, tuple[Position, int]] = {}
        self._linked: set[str] = set()

    @property
    def open(self) -> frozenset[str]:
        """The producers with a gap."""
        return frozenset(self._open)

    def add(self, producer: str, at: Position, handshake_s: float | None, now_s: float) -> bool:
        """Add a gap.

        Args:
            at: The archive's watermark before the gap.
            handshake_s: When the producer last made a handshake, as Redis has it; None if unknown.

        Returns:
            Whether it is the first one at this watermark.
        """
        self._open.setdefault(producer, _Gap(at, handshake_s, now_s))
        return self.resends(producer, at) == 0

    def resends(self, producer: str, at: Position) -> int:
        """Return how often a producer was asked to send again from a watermark.

        0 if its batches name their predecessors, which then decide, unless the gap was written off.
        """
        position, times = self._resends.get(producer, (at, 0))
        if position != at or (producer in self._linked and times < _WRITTEN_OFF):
            return 0
        return times

    def mark_linked(self, producers: Iterable[str]) -> None:
        """Note that batches of these producers name their predecessor: entries without one are foreign."""
        self._linked.update(producers)

    def is_written_off(self, producer: str, at: Position) -> bool:
        """Whether the gap behind a watermark was written off."""
        return self.resends(producer, at) >= _WRITTEN_OFF

    def streams_to_remove(self, handshakes: Mapping[str, float], *, full: bool, now_s: float) -> list[str]:
        """Return the producers whose streams are to be removed now, and write off gaps that will never be filled.

        Args:
            handshakes: When each producer last made a handshake.
            full: Whether Redis has no room for handshakes.
        """
        due = []
        for producer, gap in list(self._open.items()):
            if full or handshakes.get(producer, gap.handshake_s) != gap.handshake_s:
                due.append(producer)
            elif now_s - gap.since_s >= self._patience_s:
                self._close(producer, _WRITTEN_OFF)
        return due

    def streams_removed(self, producers: Iterable[str]) -> None:
        """Note that the streams of `streams_to_remove` were removed."""
        for producer in producers:
            self._close(producer, self.resends(producer, self._open[producer].at) + 1)

    def _close(self, producer: str, resends: int) -> None:
        self._resends[producer] = (self._open.pop(producer).at, resends)


def may_pass_gap(resends: int, at: Position, after: Position | None, *, is_batch: bool) -> bool:
    """Decide whether an entry behind a break may be read: nothing before it can still come.

    Args:
        resends: How often the producer was asked to send again from the watermark.
        at: The watermark.
        after: The predecessor that the batch names; None if it names none.
        is_batch: Whether the entry is a batch.
    """
    if after is not None:
        return after <= at or resends >= _WRITTEN_OFF
    return resends >= (UNLINKED_RESENDS if is_batch else BROKEN_RESENDS)
