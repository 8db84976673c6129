import numpy as np
import pytest

from service.models import scoring
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.kernels import threads
from service.training.algorithms.slope_one import SlopeOneConfig, fit, predict
from service.training.data import datasets
from service.training.interactions import Float32, Interactions, no_progress
from tests.reference.slope_one import deviations_slowly, predict_slowly
from tests.support.dense_tables import dense, every_pair, ratings

ALL = SlopeOneConfig(n_neighbours=1000)


def fitted(data: Interactions, config: SlopeOneConfig = ALL) -> ModelSnapshot:
    return fit(data, config, np.random.default_rng(0), no_progress)


def scores(snapshot: ModelSnapshot) -> Float32:
    rows = np.arange(len(snapshot.items))
    return np.stack([scoring.exact_scores(snapshot, user, rows) for user in range(len(snapshot.users))])


@pytest.mark.parametrize("whole", [True, False])
def test_predictions_agree_with_the_slow_reference(whole: bool) -> None:
    """Of all pairs, known or not, also of users and items without ratings."""
    data = ratings(whole=whole)
    table = dense(data)
    expected = np.clip(predict_slowly(table, deviations_slowly(table)[0]), data.rating_min, data.rating_max)
    np.testing.assert_allclose(predict(fitted(data), *every_pair(data)), expected.ravel(), atol=1e-5)


def test_with_room_for_all_what_is_served_is_exact() -> None:
    """Nothing but n_neighbours keeps scores from predictions, where all that a user rated speaks for the item."""
    data = ratings()
    table = dense(data)
    deviations, _ = deviations_slowly(table)
    is_rated = ~np.isnan(table)
    n_speakers = is_rated.astype(int) @ (~np.isnan(deviations)).T.astype(int)
    everything_speaks = ~is_rated & (n_speakers == is_rated.sum(axis=1, keepdims=True)) & (n_speakers > 0)
    assert everything_speaks.sum() > 100
    served = scores(fitted(data))
    np.testing.assert_allclose(
        served[everything_speaks], predict_slowly(table, deviations)[everything_speaks], atol=1e-5
    )


def test_what_is_served_keeps_the_most_frequent_companions() -> None:
    """For each item those it was rated together with most often; of equally frequent ones the smaller rows."""
    data = ratings()
    table = dense(data)
    deviations, shared = deviations_slowly(table)
    dropped = np.argsort(-shared, axis=1, kind="stable")[:, 4:]
    np.put_along_axis(deviations, dropped, np.nan, axis=1)
    snapshot = fitted(data, SlopeOneConfig(n_neighbours=4))
    assert snapshot.neighbourhood is not None
    spoken_for = snapshot.neighbourhood.weights.T.tocsr()
    kept = np.zeros(shared.shape, dtype=bool)
    kept[np.repeat(np.arange(len(kept)), np.diff(spoken_for.indptr)), spoken_for.indices] = True
    assert (kept == ~np.isnan(deviations)).all()


def test_what_is_left_out_is_replaced_by_levels() -> None:
    """A score is d(i) above the user's mean less the mean of d(j), and the mean of what is left of deviations."""
    data = ratings()
    table = dense(data)
    deviations, shared = deviations_slowly(table)
    np.put_along_axis(deviations, np.argsort(-shared, axis=1, kind="stable")[:, 4:], np.nan, axis=1)
    means = np.array([np.nanmean(row) if not np.isnan(row).all() else np.nanmean(table) for row in table])
    above = table - means[:, np.newaxis]
    level = np.array([0.0 if np.isnan(column).all() else np.nanmean(column) for column in above.T])
    expected = np.empty(table.shape)
    for u, i in np.ndindex(*table.shape):
        rated = ~np.isnan(table[u])
        rests = (deviations[i] - level[i] + level)[rated & ~np.isnan(deviations[i])]
        expected[u, i] = means[u] + level[i] + (rests.mean() if rests.size else 0.0)
        expected[u, i] -= level[rated].mean() if rated.any() else 0.0
    np.testing.assert_allclose(scores(fitted(data, SlopeOneConfig(n_neighbours=4))), expected, atol=1e-5)


def test_a_difference_of_nothing_counts() -> None:
    """Two items that everybody rates alike speak for each other, with a weight of 0 that is kept."""
    data = datasets.read("demo:30x20x300")
    data.ratings[:] = 3
    snapshot = fitted(data)
    assert snapshot.neighbourhood is not None
    assert snapshot.neighbourhood.weights.nnz > 100
    assert not snapshot.neighbourhood.weights.data.any()


def test_neither_blocks_nor_threads_change_a_bit() -> None:
    """More items than fit a block, on one thread and on two."""
    data = datasets.read("demo:60x400x6000")
    outcomes = []
    for n_threads in (1, 2):
        with threads.limit(n_threads):
            snapshot = fitted(data, SlopeOneConfig(n_neighbours=10))
            assert snapshot.neighbourhood is not None
            weights = snapshot.neighbourhood.weights
            outcomes.append(
                [array.tobytes() for array in (weights.indices, weights.data, predict(snapshot, *every_pair(data)))]
            )
    assert outcomes[0] == outcomes[1]


def test_the_progress_counts_items() -> None:
    """From none to all."""
    seen: list[tuple[str, int, int]] = []
    with threads.limit(1):
        fit(
            datasets.read("demo:60x300x6000"),
            ALL,
            np.random.default_rng(0),
            lambda *step: seen.append(step),
        )
    assert [done for _, done, _ in seen] == [0, 128, 256, 300]
    assert {(stage, total) for stage, _, total in seen} == {("fit", 300)}
