"""The softmax factorisation descends the loss that its docstring states."""

import numpy as np
import pytest
from numpy.typing import NDArray

from service.training.algorithms.kernels.sparse.rows import sparse_rows
from service.training.algorithms.softmax.softmax import MiniBatch, SoftmaxConfig, draw, fit, gradients_of
from service.training.assembly import history
from service.training.data import datasets
from service.training.interactions import no_progress
from tests.reference.softmax import fit_slowly, loss, users_slowly


def unit(table: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(table, axis=1, keepdims=True)
    return table / lengths


def test_gradients_are_slopes_of_the_loss() -> None:
    """By finite differences along the unit sphere."""
    data = datasets.read("demo:12x15x60")
    rng = np.random.default_rng(0)
    users, items = (unit(rng.standard_normal((n, 3))) for n in (12, 15))
    batch = MiniBatch(data.user_rows[:20], data.item_rows[:20], rng.permutation(15)[:9].astype(np.int32))
    seen = np.zeros((12, 15), dtype=bool)
    seen[data.user_rows, data.item_rows] = True
    gradients = gradients_of(
        *(batch, users.astype(np.float32), items.astype(np.float32), sparse_rows(history(data))),
        temperature=0.3,
        shard=8,
    )
    of_users, of_items = np.zeros((12, 3)), np.zeros((15, 3))
    np.add.at(of_users, batch.users, gradients.users)
    np.add.at(of_items, batch.items, gradients.items)
    np.add.at(of_items, batch.drawn, gradients.drawn)
    for table, gradient in ((users, of_users), (items, of_items)):
        along = np.sum(gradient * table, axis=1, keepdims=True)
        tangent = gradient - along * table
        for place in np.ndindex(table.shape):
            ends = []
            kept = table[place]
            for change in (1e-5, -1e-5):
                table[place] = kept + change
                ends.append(loss(batch, seen, users, items, temperature=0.3))
            table[place] = kept
            assert tangent[place] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=2e-5)


@pytest.mark.parametrize(
    "config",
    [
        SoftmaxConfig(n_factors=5, n_epochs=2, batch_size=30, n_negatives=12, dislike_below=0),
        SoftmaxConfig(n_factors=3, n_epochs=2, batch_size=1000, temperature=0.05, lr=0.1, dislike_below=0),
        SoftmaxConfig(
            n_factors=4, n_epochs=1, batch_size=7, n_negatives=1, temperature=1.0, init_std_dev=0.5, dislike_below=0
        ),
    ],
)
def test_it_agrees_with_the_slow_reference(config: SoftmaxConfig) -> None:
    """Float32 in shards and float64 one interaction at a time give the same directions."""
    data = datasets.read("demo:30x20x220")
    snapshot = fit(data, config, np.random.default_rng(7), no_progress, shard=8)
    _, items = fit_slowly(data, config, np.random.default_rng(7))
    np.testing.assert_allclose(snapshot.item_factors, unit(items), atol=2e-3)
    users = users_slowly(data, config, snapshot.item_factors.astype(np.float64))
    np.testing.assert_allclose(snapshot.user_factors, users, atol=2e-3)


def test_factors_of_items_have_length_1_or_none() -> None:
    """Rows without interactions have none, nor have users without."""
    data = datasets.read("demo:40x30x450")
    known = data.take(np.flatnonzero((data.user_rows != 3) & (data.item_rows != 5)))
    snapshot = fit(known, SoftmaxConfig(n_factors=8, n_epochs=2), np.random.default_rng(0), no_progress)
    lengths = np.linalg.norm(snapshot.item_factors, axis=1)
    assert lengths[5] == 0
    np.testing.assert_allclose(np.delete(lengths, 5), 1, rtol=1e-6)
    assert np.flatnonzero(~snapshot.user_factors.any(axis=1)).tolist() == [3]


def test_items_are_drawn_once_each() -> None:
    """Among items with interactions; all of them if there are no more."""
    catalogue = np.arange(5, 105, dtype=np.int32)
    rng = np.random.default_rng(0)
    drawn = draw(catalogue, 60, rng)
    assert drawn.dtype == np.int32
    assert np.unique(drawn).size == 60
    assert np.isin(drawn, catalogue).all()
    assert draw(catalogue, 60, rng).tolist() != drawn.tolist()
    assert draw(catalogue, 100, rng).tolist() == catalogue.tolist()
