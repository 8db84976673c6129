import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training.evaluation.measures.beyond_accuracy import Popularity, coverage, gini, mean_popularity, novelty
from service.training.evaluation.measures.per_user import MeasureName, exposure_tallies
from tests.support.interactions import rated

# Item 0 has three interactions, item 1 two, item 2 one, item 3 none; four users, of whom the last has none.
TRAIN = rated([(0, 0, 5), (1, 0, 4), (2, 0, 3), (0, 1, 5), (1, 1, 1), (2, 2, 2)], n_users=4, n_items=4)
POPULARITY = Popularity.of(TRAIN)
LISTS = np.array([[0, 3], [1, -1], [-1, -1]], dtype=np.int32)


def test_popularity_by_hand() -> None:
    """Counts of items, users with interactions, and the mean count of each profile."""
    assert POPULARITY.counts.tolist() == [3, 2, 1, 0]
    assert POPULARITY.n_users == 3
    assert POPULARITY.of_profiles[:3].tolist() == [2.5, 2.5, 2.0]
    assert math.isnan(POPULARITY.of_profiles[3])


def test_figures_by_hand() -> None:
    """A full list, a short one and an empty one; an item without interactions counts as one with a single one."""
    assert coverage(LISTS, 4) == 0.75
    assert novelty(LISTS, POPULARITY)[:2].tolist() == pytest.approx([math.log2(3) / 2, math.log2(1.5)])
    assert mean_popularity(LISTS, POPULARITY)[:2].tolist() == [1.5, 2.0]
    assert np.isnan(novelty(LISTS, POPULARITY)[2])
    names = [MeasureName.parse(text) for text in ("coverage@1", "popularity_bias@2", "novelty@2", "ndcg@2")]
    by_user, together = exposure_tallies(names, LISTS, np.array([0, 2, 3]), POPULARITY)
    assert together == {"coverage@1": 0.5}
    assert by_user["popularity_bias@2"].value() == pytest.approx((1.5 + 2.0) / (2.5 + 2.0) - 1)
    assert by_user["novelty@2"].user_rows.tolist() == [0, 2]
    assert set(by_user) == {"popularity_bias@2", "novelty@2"}


def test_gini_at_its_bounds() -> None:
    """All items equally often, one item always, no item, and a catalogue of one."""
    assert gini(np.array([[0, 1], [2, 3]], dtype=np.int32), 4) == pytest.approx(0)
    assert gini(np.array([[2], [2]], dtype=np.int32), 4) == pytest.approx(1)
    assert gini(np.full((2, 2), -1, dtype=np.int32), 4) is None
    assert gini(np.zeros((3, 1), dtype=np.int32), 1) == 0
    assert coverage(np.empty((0, 5), dtype=np.int32), 4) is None


@given(counts=st.lists(st.integers(0, 9), min_size=2, max_size=8).filter(any))
def test_gini_is_half_the_mean_difference(counts: list[int]) -> None:
    """The slow definition: the mean absolute difference of all pairs over twice the mean, scaled to end at 1."""
    n = len(counts)
    lists = np.repeat(np.arange(n), counts)[:, np.newaxis].astype(np.int32)
    difference = sum(abs(a - b) for a in counts for b in counts) / n**2
    assert gini(lists, n) == pytest.approx(difference / (2 * sum(counts) / n) * n / (n - 1))
