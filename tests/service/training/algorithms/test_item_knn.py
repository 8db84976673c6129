import numpy as np
import pytest

from service.models.neighbourhood import Neighbourhood
from service.training.algorithms import item_knn
from service.training.algorithms.item_knn import ItemKnnConfig
from service.training.algorithms.kernels.neighbours.lists import push_bounded
from service.training.assembly import history
from service.training.data import datasets
from service.training.interactions import Interactions, no_progress
from tests.reference.item_to_item import item_knn_weights, seen

NOT_NEEDED = np.random.default_rng()
SETTINGS = [
    ItemKnnConfig(),
    ItemKnnConfig(n_neighbours=7, asymmetry=0.5, shrink=0, weighting="none"),
    ItemKnnConfig(n_neighbours=20, similarity="jaccard", shrink=3, weighting="none"),
    ItemKnnConfig(n_neighbours=1000, similarity="product", weighting="bm25"),
    ItemKnnConfig(n_neighbours=12, asymmetry=1, weighting="bm25"),
    ItemKnnConfig(n_neighbours=3, similarity="jaccard", weighting="tf_idf", asymmetry=0),
    ItemKnnConfig(n_neighbours=15, weighting="walk", asymmetry=0.3, shrink=0),
]


@pytest.fixture(scope="module")
def data() -> Interactions:
    return datasets.read("demo:90x150x2500")


def served(data: Interactions, config: ItemKnnConfig) -> Neighbourhood:
    neighbourhood = item_knn.fit(data, config, NOT_NEEDED, no_progress).neighbourhood
    assert neighbourhood is not None
    return neighbourhood


@pytest.mark.parametrize("config", SETTINGS, ids=str)
def test_lists_agree_with_the_reference(data: Interactions, config: ItemKnnConfig) -> None:
    """Neighbours and weights, for all similarities, weightings and lengths."""
    neighbourhood = served(data, config)
    assert (neighbourhood.over, neighbourhood.combine, neighbourhood.signal) == ("items", "sum", "seen")
    weights = neighbourhood.weights
    assert weights.dtype == np.float32
    assert weights.indices.dtype == np.int32
    assert weights.has_sorted_indices
    np.testing.assert_allclose(weights.toarray(), item_knn_weights(data, config), rtol=1e-6)
    assert np.bincount(weights.indices).max() <= config.n_neighbours


def test_the_plain_cosine(data: Interactions) -> None:
    """Without weights and shrinking it is the cosine between columns of zeros and ones."""
    x = seen(data)
    norms = np.linalg.norm(x, axis=0)
    cosines = x.T @ x / np.outer(norms, norms)
    np.fill_diagonal(cosines, 0)
    config = ItemKnnConfig(n_neighbours=1000, asymmetry=0.5, shrink=0, weighting="none", dislike_below=0)
    np.testing.assert_allclose(served(data, config).weights.toarray(), cosines, rtol=1e-6)


def test_norms_are_those_of_the_weighted_columns(data: Interactions) -> None:
    """But for walk, where they count users."""
    x = seen(data)
    for weighting in ("none", "tf_idf", "bm25"):
        user_weights, item_scales, norms = item_knn.weights_and_norms(history(data), weighting)
        np.testing.assert_allclose(norms, np.square(x * user_weights[:, np.newaxis] * item_scales).sum(axis=0))
    user_weights, _, norms = item_knn.weights_and_norms(history(data), "walk")
    np.testing.assert_allclose(user_weights**2 * x.sum(axis=1), 1)
    np.testing.assert_allclose(norms, x.sum(axis=0))


def test_ties_keep_the_lower_rows() -> None:
    """All items are equally similar, and a list has two."""
    n_users, n_items = 3, 6
    whole = datasets.read(f"demo:{n_users}x{n_items}x{n_users * n_items}")
    weights = served(whole, ItemKnnConfig(n_neighbours=2, weighting="none", dislike_below=0)).weights
    assert weights[[0]].indices.tolist() == [1, 2, 3, 4, 5]
    assert weights[[1]].indices.tolist() == [0, 2, 3, 4, 5]
    assert weights[[2]].indices.tolist() == [0, 1]
    assert weights.nnz == 2 * n_items


def test_the_heap_keeps_what_a_stable_sort_keeps() -> None:
    """For lists with many ties."""
    rng = np.random.default_rng(5)
    for n, k in [(1, 1), (5, 5), (60, 7), (300, 64)]:
        strengths = rng.integers(1, 6, n).astype(np.float32)
        rows, weights, n_kept = np.full(k, -1, np.int32), np.zeros(k, np.float32), 0
        for row, strength in enumerate(strengths):
            n_kept = push_bounded(weights, rows, n_kept, strength, row)
        expected = np.lexsort((np.arange(n), -strengths))[:k]
        assert sorted(rows.tolist()) == sorted(expected.tolist())
        assert weights.tolist() == strengths[rows].tolist()


def test_an_item_that_nobody_has_seen_has_no_neighbours(data: Interactions) -> None:
    """It is no neighbour, and has none; a rating of 0 counts as seen."""
    left = data.take(np.flatnonzero(data.item_rows != 11))
    left.ratings[:] = 0
    weights = served(left, ItemKnnConfig(n_neighbours=1000)).weights.toarray()
    assert not weights[11].any()
    assert not weights[:, 11].any()
    assert weights.any(axis=1).sum() > 140


def test_reports_of_progress_change_nothing(data: Interactions) -> None:
    """They reach the number of items."""
    whole = served(data, ItemKnnConfig()).weights
    reports: list[tuple[int, int]] = []

    def report(_: str, done: int, total: int) -> None:
        reports.append((done, total))

    model = item_knn.fit(data, ItemKnnConfig(), NOT_NEEDED, report, report_every=32)
    assert model.neighbourhood is not None
    assert model.neighbourhood.weights.toarray().tobytes() == whole.toarray().tobytes()
    assert reports == [(n, 150) for n in (0, 32, 64, 96, 128, 150)]
