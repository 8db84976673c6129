import pytest

from service.errors import OverBudget
from service.training.interactions import no_progress
from service.training.selection.cost_limit import CostLimit


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_pace_of_the_finished_steps_is_extrapolated() -> None:
    """The first step may include compilation, so that only the later ones tell the pace."""
    clock = Clock()
    steps: list[tuple[str, int, int]] = []
    limited = CostLimit(20.0, lambda *step: steps.append(step), clock)
    limited("fit", 0, 10)
    clock.now_s += 9
    limited("fit", 1, 10)
    clock.now_s += 1
    limited("fit", 2, 10)  # 10 s, and 8 steps of 1 s
    clock.now_s += 3
    with pytest.raises(OverBudget, match=r"It would take about 27 s, and there were 20 s\."):
        limited("fit", 3, 10)  # 13 s, and 7 steps of 2 s
    assert steps == [("fit", 0, 10), ("fit", 1, 10), ("fit", 2, 10)]


def test_what_is_finished_is_kept() -> None:
    """A fit that took longer than it might is only ended before its last step."""
    clock = Clock()
    limited = CostLimit(1.0, no_progress, clock)
    clock.now_s += 5
    limited("fit", 4, 4)
    with pytest.raises(OverBudget):
        limited("next", 0, 4)


def test_each_stage_has_a_pace_of_its_own() -> None:
    """The time before it counts as it was."""
    clock = Clock()
    reported: list[tuple[str, int, int]] = []
    limited = CostLimit(10.0, lambda *progress: reported.append(progress), clock)
    for done in range(1, 4):
        clock.now_s += 2
        limited("read", done, 3)
    limited("fit", 0, 100)
    for done in range(1, 11):
        clock.now_s += 0.01
        limited("fit", done, 100)
    assert reported[-1] == ("fit", 10, 100)
