"""Popularity counts interactions of all time, with a decay, or within a window."""

import numpy as np
import pytest

from service.models.ranking import scoring
from service.models.ranking.scoring import TopNRequest
from service.training.algorithms.popularity import PopularityConfig, fit
from service.training.interactions import Interactions, no_progress
from tests.support.interactions import rated

DAY_S = 86_400


@pytest.fixture
def data() -> Interactions:
    """Item 0 was popular 30 days ago, item 1 is now, item 2 has one old interaction and item 3 none."""
    rows = [*((user, 0, 4.0) for user in range(5)), *((user, 1, 4.0) for user in range(2)), (0, 2, 4.0)]
    days = [*(0 for _ in range(5)), 30, 29, 10]
    return rated(rows, times=[day * DAY_S for day in days], n_users=9, n_items=4)


def listed(data: Interactions, config: PopularityConfig) -> list[int]:
    snapshot = fit(data, config, np.random.default_rng(0), no_progress)
    (ranking,) = scoring.personal(snapshot, [TopNRequest(8, 4)])
    rows: list[int] = ranking.rows.tolist()
    return rows


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (PopularityConfig(), [0, 1, 2, 3]),
        (PopularityConfig(half_life_days=5), [1, 0, 2, 3]),
        (PopularityConfig(window_days=7), [1, 0, 2, 3]),
        (PopularityConfig(window_days=20), [1, 2, 0, 3]),
        (PopularityConfig(window_days=30), [0, 1, 2, 3]),
    ],
)
def test_what_is_popular_depends_on_the_time(data: Interactions, config: PopularityConfig, expected: list[int]) -> None:
    """A window is relative to the latest interaction; items outside of it follow by all of their interactions."""
    assert listed(data, config) == expected


def test_without_times_a_window_holds_everything() -> None:
    """There is nothing to select by."""
    data = rated([(0, 1, 3.0), (1, 1, 3.0), (0, 0, 3.0)], n_users=9, n_items=4)
    assert listed(data, PopularityConfig(window_days=7, half_life_days=1)) == [1, 0, 2, 3]
