"""The weights of a whole training set are those of its users one by one."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import UsageError
from service.models.history.user_history import EVENT_TYPES
from service.models.history.weights import HistoryWeights
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.popularity import PopularityConfig
from service.training.algorithms.weighted_history import DEFAULT_HALF_LIFE, WeightedHistory
from service.training.assembly import assemble, history_entries
from service.training.entry_weights import entry_weights, undecayed, without_negligible
from service.training.interactions import Interactions
from tests.support.interactions import rated

DAY_S = 86_400
length = st.none() | st.floats(0.5, 50.0)


@st.composite
def weightings(draw: st.DrawFn) -> HistoryWeights:
    return HistoryWeights(
        half_life=draw(length),
        half_life_days=draw(length),
        window=draw(st.none() | st.integers(1, 4)),
        type_weights=tuple(draw(st.lists(st.floats(-2, 2), min_size=5, max_size=5))),
        dislike_below=draw(st.none() | st.floats(1, 5)),
        dislike_weight=draw(st.floats(-2, 2)),
        long_half_life=draw(length),
        long_weight=draw(st.just(0.0) | st.floats(0.01, 2)),
    )


@st.composite
def sets(draw: st.DrawFn) -> Interactions:
    pairs = draw(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=25))
    rows = [(user, item, draw(st.sampled_from([0.5, 2.0, 5.0]))) for user, item in sorted(pairs)]
    times = draw(st.none() | st.lists(st.integers(0, 9), min_size=len(rows), max_size=len(rows)))
    data = rated(rows, times=None if times is None else [DAY_S * time for time in times], n_users=6, n_items=7)
    types = draw(st.none() | st.lists(st.integers(0, 4), min_size=len(rows), max_size=len(rows)))
    if types is None:
        return data
    return Interactions(**{**vars(data), "types": np.array(types, dtype=np.uint8)})


@given(sets(), weightings())
def test_all_weights_are_those_of_single_histories(data: Interactions, weights: HistoryWeights) -> None:
    """Up to the order of sums, and 0 outside of the window."""
    snapshot: ModelSnapshot = assemble(data, "popularity", PopularityConfig())
    found = entry_weights(history_entries(data), weights)
    expected = np.zeros((len(data.users), len(data.items)))
    for user_row in range(len(data.users)):
        recent = weights.recent(snapshot.user_history(user_row))
        expected[user_row, recent.rows] = weights.of(recent)
    users = np.repeat(np.arange(len(data.users)), np.diff(snapshot.history.indptr))
    np.testing.assert_allclose(found, expected[users, snapshot.history.indices], rtol=1e-12, atol=0)


def test_the_smallest_dislike_changes_nothing() -> None:
    """How often it goes into the likes is above the largest number."""
    data = rated([(0, 0, 2.0), (0, 1, 5.0), (0, 2, 5.0)])
    weights = HistoryWeights(dislike_below=3.0, dislike_weight=-1e-309)
    assert entry_weights(history_entries(data), weights).tolist() == [-1e-309, 1.0, 1.0]


@given(sets(), weightings())
def test_dislikes_weigh_at_most_half_of_likes(data: Interactions, weights: HistoryWeights) -> None:
    """Below that they weigh what their events do."""
    snapshot: ModelSnapshot = assemble(data, "popularity", PopularityConfig())
    plain = undecayed(weights)
    for user_row in range(len(data.users)):
        own = snapshot.user_history(user_row)
        of_events, found = plain.of_events(own.values, own.types), plain.of(own)
        likes, dislikes = (float(np.maximum(sign * of_events, 0).sum()) for sign in (1, -1))
        assert found[of_events > 0].tolist() == of_events[of_events > 0].tolist()
        assert -found[found < 0].sum() == pytest.approx(min(dislikes, likes / 2))


@given(sets(), weightings())
def test_weights_that_no_fold_in_uses_become_zero(data: Interactions, weights: HistoryWeights) -> None:
    """Those at most 2^-24 of the user's largest."""
    entries = history_entries(data)
    plain = entry_weights(entries, weights)
    found = without_negligible(entries, plain)
    for start, stop in itertools.pairwise(entries.history.indptr.tolist()):
        own, kept = np.abs(plain[start:stop]), found[start:stop]
        is_kept = own > 2.0**-24 * np.max(own, initial=0.0)
        assert kept.tolist() == np.where(is_kept, plain[start:stop], 0).tolist()


def test_hyperparameters_become_weights() -> None:
    """Shares of the scale become ratings, and the half-life is a default where there are times."""
    untimed = rated([(0, 0, 1.0), (0, 1, 5.0)])
    timed = rated([(0, 0, 1.0), (0, 1, 5.0)], times=[1, 2])
    config = WeightedHistory(purchase_weight=1.5, click_weight=0.5, view_weight=0.25, dislike_weight=-0.5)
    weights = config.history_weights(timed, window=7)
    assert dict(zip(EVENT_TYPES, weights.type_weights, strict=True)) == {
        "rating": 1.0,
        "purchase": 1.5,
        "click": 0.5,
        "view": 0.25,
        "dismiss": -0.5,
    }
    assert weights.dislike_below == pytest.approx(1.8)
    assert (weights.dislike_weight, weights.half_life, weights.window) == (-0.5, DEFAULT_HALF_LIFE, 7)
    assert config.history_weights(timed, 9.0).half_life == 9.0
    assert config.history_weights(untimed).half_life is None
    assert config.history_weights(rated([(0, 0, 1.0), (0, 1, 5.0)], times=[7, 7])).half_life is None
    assert WeightedHistory(half_life=0).history_weights(timed).half_life is None
    assert WeightedHistory(half_life=3).history_weights(untimed).half_life == 3
    assert WeightedHistory(dislike_below=0).history_weights(timed).dislike_below is None
    assert config.history_weights(rated([(0, 0, 1.0), (0, 1, 1.0)])).dislike_below is None
    with pytest.raises(UsageError, match="dislike_below"):
        WeightedHistory(dislike_below=2)
