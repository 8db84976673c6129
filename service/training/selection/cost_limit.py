"""Ends a fit whose estimated cost exceeds a limit; the estimate is made from the progress that the fit reports.

A fit reports its progress in even steps (epochs, blocks, items), so that the pace of the finished steps tells what the
others take, on this machine and under its present load. No table of speeds has to be kept.
"""

import time
from collections.abc import Callable
from typing import Final

from service.errors import OverBudget
from service.training.interactions import Progress

# From here on tenths of a second do not matter.
_WHOLE_S: Final = 10


class CostLimit:
    """A `Progress` that ends a fit by raising `OverBudget`.

    Args:
        limit_s: How long the fit may take.
        forward: Called with the progress, too.
        clock: Seconds that never go back.
    """

    def __init__(self, limit_s: float, forward: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._forward = forward
        self._clock = clock
        self._start_s = clock()
        self._stage = ""
        # The first finished step of the stage. What it took is not extrapolated: it may include compilation.
        self._first: tuple[float, int] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take note of the progress of a stage.

        Raises:
            OverBudget: The fit would take longer than the limit.
        """
        now_s = self._clock()
        if stage != self._stage:
            self._stage, self._first = stage, None
        estimated_s = now_s - self._start_s
        if self._first is not None and done > self._first[1]:
            first_s, first_done = self._first
            estimated_s += (total - done) * (now_s - first_s) / (done - first_done)
        elif done > 0:
            self._first = (now_s, done)
        # A fit that is finished is worth keeping.
        if done < total and estimated_s > self._limit_s:
            raise OverBudget(over_budget(estimated_s, self._limit_s))
        self._forward(stage, done, total)


def over_budget(estimated_s: float, limit_s: float, remark: str = "") -> str:
    """Return the sentence that a fit would take too long."""
    return f"It would take about {_seconds(estimated_s)}{remark}, and there were {_seconds(limit_s)}."


def _seconds(value_s: float) -> str:
    return f"{value_s:.0f} s" if value_s >= _WHOLE_S else f"{value_s:.1f} s"
