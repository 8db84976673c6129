import itertools
import random
import statistics

import pytest

from ops.load.pacing import constant, poisson, schedule


@pytest.mark.parametrize(
    ("rate_rps", "duration_s", "expected"),
    [
        (1.0, 3.0, [0.0, 1.0, 2.0]),
        (2.0, 1.0, [0.0, 0.5]),
        (4.0, 0.6, [0.0, 0.25, 0.5]),
        (0.5, 1.0, [0.0]),
        (0.5, 2.5, [0.0, 2.0]),
        (1000.0, 0.001, [0.0]),
    ],
)
def test_constant_arrivals_lie_at_even_distances_below_the_duration(
    rate_rps: float, duration_s: float, expected: list[float]
) -> None:
    """A rate and a duration fix every send time."""
    assert list(constant(rate_rps, duration_s)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rate_rps", "duration_s"), [(300.0, 0.1), (1000.0, 2.3), (7.0, 3.0), (0.3, 10.0), (3.3, 10.0)]
)
def test_constant_arrivals_number_rate_times_duration(rate_rps: float, duration_s: float) -> None:
    """Floating point neither adds a request nor loses one where rate x duration is a whole number."""
    times = list(constant(rate_rps, duration_s))
    assert len(times) == round(rate_rps * duration_s)
    assert all(time_s < duration_s for time_s in times)


def test_poisson_arrivals_are_repeatable_and_ascending() -> None:
    """The same seed gives the same times, another seed others."""
    first, again, other = (list(poisson(50.0, 10.0, random.Random(seed))) for seed in (1, 1, 2))
    assert first == again != other
    assert first == sorted(first)
    assert all(0 <= time_s < 10.0 for time_s in first)


def test_poisson_gaps_are_exponential_around_the_rate() -> None:
    """The mean gap is 1/rate, and the standard deviation is as large."""
    times = list(poisson(200.0, 100.0, random.Random(3)))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert statistics.mean(gaps) == pytest.approx(1 / 200, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 200, rel=0.05)


def test_a_schedule_is_chosen_by_name() -> None:
    """By the names of the command line."""
    assert list(schedule("constant", 10.0, 1.0, random.Random(1))) == list(constant(10.0, 1.0))
    assert list(schedule("poisson", 10.0, 1.0, random.Random(1))) == list(poisson(10.0, 1.0, random.Random(1)))
