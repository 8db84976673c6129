from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.models.history.event_types import EVENT_TYPES
from service.models.history.user_history import UserHistory
from service.models.history.weights import HistoryWeights
from service.training.algorithms.popularity import PopularityConfig
from service.training.assembly import assemble
from service.training.deep.batches.recent_histories import RecentHistories
from service.training.interactions import Interactions
from tests.reference.recent_histories import history_before
from tests.support.interactions import rated


@st.composite
def data_sets(draw: st.DrawFn) -> Interactions:
    """Return some interactions with or without times, many of them equal, and with or without types."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 24)), min_size=1, max_size=60, unique=True))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    rows = [(user, item, float(generator.integers(1, 6))) for user, item in pairs]
    times = generator.integers(0, 10**6, len(rows)).tolist() if draw(st.booleans()) else None
    if times and draw(st.booleans()):
        times = [time % 4 for time in times]
    data = rated(rows, times=times, n_users=4, n_items=25)
    types = generator.integers(0, len(EVENT_TYPES), len(rows)).astype(np.uint8)
    return replace(data, types=types) if draw(st.booleans()) else data


WEIGHTS = st.builds(
    HistoryWeights,
    half_life=st.sampled_from([None, 3.0]),
    half_life_days=st.sampled_from([None, 2.0]),
    window=st.just(8),
    type_weights=st.sampled_from([(1.0, 1.0, 0.8, 0.6, -0.2), (1.0, 0.3, 0.3, 0.1, -3.0)]),
    dislike_below=st.sampled_from([None, 2.5]),
    dislike_weight=st.sampled_from([-0.2, -5.0]),
)


def assert_equal(found: UserHistory, expected: UserHistory) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.tobytes() == other.tobytes()


@given(data=data_sets(), how=WEIGHTS)
def test_a_window_is_what_a_look_at_every_interaction_finds(data: Interactions, how: HistoryWeights) -> None:
    """To the last bit, the weights of its interactions, too."""
    windows = RecentHistories(data, window=8).before(np.arange(len(data)))
    weights = windows.weights(how)
    for position in range(len(data)):
        expected = history_before(data, position, window=8)
        assert_equal(windows.history(position), expected)
        n = expected.rows.size
        width = windows.items.shape[1]
        assert windows.items[position, : width - n].tolist() == [25] * (width - n)
        assert not weights[position, : width - n].any()
        assert weights[position, width - n :].tobytes() == how.of(expected).tobytes()


@given(data=data_sets())
def test_the_window_of_a_user_is_what_a_model_serves(data: Interactions) -> None:
    """So that a network sees in training what it sees in serving."""
    model = assemble(data, "popularity", PopularityConfig())
    windows = RecentHistories(data, window=6).of_users(np.arange(4))
    for row in range(4):
        assert_equal(windows.history(row), HistoryWeights(window=6).recent(model.user_history(row)))


@pytest.mark.parametrize("times", [None, []])
def test_without_interactions_windows_are_empty(times: list[int] | None) -> None:
    windows = RecentHistories(rated([], times=times, n_users=2, n_items=3), window=5).of_users(np.arange(2))
    assert windows.items.tolist() == [[3], [3]]
    assert windows.sizes.tolist() == [0, 0]
    assert not windows.weights(HistoryWeights(half_life=2.0, half_life_days=1.0)).any()
