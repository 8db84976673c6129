import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.pages.axis import Axis, abbreviated

VALUES = st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=20)


@given(VALUES, st.booleans(), st.booleans())
def test_values_and_ticks_lie_on_the_axis(values: list[float], log: bool, from_zero: bool) -> None:
    """Ticks ascend, and there are at most one more than the steps."""
    axis = Axis.over(values, "x", log=log, from_zero=from_zero and not log)
    ticks = [value for value, _ in axis.ticks(6)]
    assert all(-1e-9 <= axis.fraction(value) <= 1 + 1e-9 for value in [*values, *ticks])
    assert ticks == sorted(set(ticks))
    assert 1 <= len(ticks) <= 7


@pytest.mark.parametrize(
    ("low", "high", "names"),
    [
        (0.8423, 0.9987, ["0.85", "0.9", "0.95"]),
        (0, 23, ["0", "5", "10", "15", "20"]),
        (-0.3, 0.3, ["-0.3", "-0.2", "-0.1", "0", "0.1", "0.2", "0.3"]),
        (0, 60_000, ["0", "10k", "20k", "30k", "40k", "50k", "60k"]),
    ],
)
def test_ticks_are_round(low: float, high: float, names: list[str]) -> None:
    """Their labels have no digits that are rounding errors."""
    assert [name for _, name in Axis("x", low, high).ticks(6)] == names


def test_a_logarithmic_axis_has_ticks_at_powers_of_ten() -> None:
    """And between them where there is room; close values do not fill the axis."""
    assert [name for _, name in Axis("x", 0.9, 2000, log=True).ticks(6)] == ["1", "10", "100", "1k"]
    assert [name for _, name in Axis("x", 0.9, 60, log=True).ticks(6)] == ["1", "2", "5", "10", "20", "50"]
    narrow = Axis.over([100.0, 101.0], "x", log=True)
    assert narrow.fraction(101.0) - narrow.fraction(100.0) < 0.01


def test_a_categorical_axis_has_a_tick_for_every_name() -> None:
    """At 0, 1 and so on."""
    axis = Axis.categorical(["a", "b"], "x")
    assert axis.ticks() == [(0.0, "a"), (1.0, "b")]
    assert axis.fraction(0.5) == 0.5


def test_large_values_are_abbreviated() -> None:
    """To three digits."""
    assert [abbreviated(value) for value in (0.05, 12, 3200, 2_500_000, 4e9)] == ["0.05", "12", "3.2k", "2.5M", "4G"]
