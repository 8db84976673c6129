r"""StreamGaps: what Redis lost of a stream while the producer's log still holds it, and what is done about it.

Invariants:

- The watermark passes a break in a producer's entries only on the producer's own word that it holds nothing there (a
  batch's `after`), never because an entry beyond it is what came.
- A stream with a gap is not read on. It is removed, because Redis takes no smaller ids than it has seen, and the
  producer, which then finds no stream, sends everything beyond the watermark again under the same numbers. So nothing
  can double.
- It is removed only after its producer shook hands since the gap was found, so that its log is there to send from. The
  one exception is a full Redis: handshakes leave no trace there, and the stream is what fills it.
- What does not tell what it follows, a batch of an older version or an entry that is no batch, is may_pass_gap after it
  came again, and never from a producer that tells it otherwise; and every gap of a producer that is not heard of for
  `patience_s` is written off.

    [JOINED] -- break --> [GAP] -- handshake seen, or Redis is full --> stream removed --> [JOINED] when it is back
                            \--- nothing heard for patience_s ---------------------------> [JOINED], the gap is passed

Pure: told what Redis says and what time it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from telemetry.batch import Position

# So often a batch that does not say what it follows is asked for again, and so often an entry that is no batch.
UNLINKED_RESENDS: Final = 1
BROKEN_RESENDS: Final = 3
_WRITTEN_OFF: Final = 1_000_000


@dataclass(slots=True)
class _Gap:
    at: Position
    score: float | None
    since_s: float


class StreamGaps:
    """The gaps in the streams of all producers.

    Args:
        patience_s: How long a producer that is not heard of may leave a gap open.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._open: dict[str, _Gap] = {}
        # By producer: where it was asked to send again, and how often at that place.
        self._asked: dict[str, tuple[Position, int]] = {}
        self._linked: set[str] = set()

    @property
    def open(self) -> frozenset[str]:
        """The producers with a gap."""
        return frozenset(self._open)

    def found(self, producer: str, at: Position, score: float | None, now_s: float) -> bool:
        """Note a gap.

        Args:
            producer: In whose stream.
            at: The archive's watermark, before it.
            score: When the producer last shook hands, as Redis says; None if it does not say.
            now_s: Our monotonic clock.

        Returns:
            Whether it is the first one at this place.
        """
        self._open.setdefault(producer, _Gap(at, score, now_s))
        return self.asked(producer, at) == 0

    def asked(self, producer: str, at: Position) -> int:
        """Tell how often a producer was asked to send again what follows a place, if that is to count."""
        place, times = self._asked.get(producer, (at, 0))
        if place != at or (producer in self._linked and times < _WRITTEN_OFF):
            return 0
        return times

    def linked(self, producers: Iterable[str]) -> None:
        """Note that these producers tell what each of their batches follows: what does not is not theirs."""
        self._linked.update(producers)

    def is_written_off(self, producer: str, at: Position) -> bool:
        """Tell whether what follows a place was written off."""
        return self.asked(producer, at) >= _WRITTEN_OFF

    def due(self, scores: Mapping[str, float], *, full: bool, now_s: float) -> list[str]:
        """Tell whose streams are to be removed now; gaps that will never be filled are closed.

        Args:
            scores: When each producer last shook hands.
            full: Whether Redis has no room for handshakes.
            now_s: Our monotonic clock.

        Returns:
            The producers.
        """
        due = []
        for producer, gap in list(self._open.items()):
            if full or scores.get(producer, gap.score) != gap.score:
                due.append(producer)
            elif now_s - gap.since_s >= self._patience_s:
                self._close(producer, _WRITTEN_OFF)
        return due

    def removed(self, producers: Iterable[str]) -> None:
        """Note that these streams were removed.

        Args:
            producers: What `due` told.
        """
        for producer in producers:
            self._close(producer, self.asked(producer, self._open[producer].at) + 1)

    def _close(self, producer: str, asked: int) -> None:
        self._asked[producer] = (self._open.pop(producer).at, asked)


def may_pass_gap(asked: int, at: Position, after: Position | None, *, whole: bool) -> bool:
    """Tell whether what comes behind a break may be taken.

    Args:
        asked: How often the producer was asked to send again what follows the watermark.
        at: The watermark.
        after: What the batch says that it follows; None if it does not say.
        whole: Whether it is a batch.

    Returns:
        True if nothing before it can still come.
    """
    if after is not None:
        return after <= at or asked >= _WRITTEN_OFF
    return asked >= (UNLINKED_RESENDS if whole else BROKEN_RESENDS)
