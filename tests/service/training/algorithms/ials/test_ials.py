"""Implicit ALS minimises the loss that its docstring states."""

from functools import partial

import numpy as np
import pytest

from service.errors import DataError
from service.training.algorithms.ials import ials
from service.training.algorithms.ials.ials import IalsConfig, first_table, fit, half_epoch, unobserved_weight
from service.training.algorithms.kernels.sparse import ridge
from service.training.algorithms.kernels.sparse.rows import SparseRows
from service.training.data import datasets
from service.training.interactions import no_progress
from tests.reference.ials import fit_slowly, loss, sides_of, sweep_slowly
from tests.support.interactions import rated


@pytest.mark.parametrize(
    "config",
    [
        IalsConfig(n_factors=6, n_epochs=3),
        IalsConfig(n_factors=6, n_epochs=3, unobserved_weight=0.3, reg=0.02, reg_exp=0.5, init_std_dev=1.0),
        IalsConfig(n_factors=5, n_epochs=2, unobserved_weight=0.0, reg=0.1),
        IalsConfig(n_factors=70, n_epochs=2, block_size=100),
        IalsConfig(n_factors=4, n_epochs=4, confidence="ratings"),
        IalsConfig(n_factors=1, n_epochs=2, reg_exp=0.0),
        IalsConfig(n_factors=6, n_epochs=3, half_life=0, dislike_below=0.6, dislike_weight=-1.5),
        IalsConfig(n_factors=6, n_epochs=3, half_life=2, dislike_below=0.6, dislike_weight=0),
    ],
)
def test_exact_half_epochs_agree_with_the_slow_reference(config: IalsConfig) -> None:
    """Rotated and in float32, in either space, the solution is the dense one in float64."""
    data = datasets.read("demo:40x30x450")
    snapshot = fit(data, config, np.random.default_rng(7), no_progress)
    users, items = fit_slowly(data, config, np.random.default_rng(7))
    np.testing.assert_allclose(snapshot.user_factors @ snapshot.item_factors.T, users @ items.T, atol=2e-5)
    np.testing.assert_allclose(
        np.linalg.norm(snapshot.item_factors, axis=1), np.linalg.norm(items, axis=1), atol=2e-5, rtol=1e-5
    )
    assert not snapshot.global_mean
    assert not snapshot.user_bias.any()
    assert not snapshot.item_bias.any()


@pytest.mark.parametrize("block_size", [1, 3, 4, 9])
def test_a_sweep_agrees_with_the_slow_reference(block_size: int) -> None:
    """Long rows, also of several chunks, take a step per block; short rows are solved; empty rows stay."""
    rng = np.random.default_rng(0)
    k, n_table = 9, 700
    table = rng.standard_normal((n_table, k)).astype(np.float32)
    spectrum, penalties = rng.random(k) * 9, np.array([0.5, 2.0, 1.0, 0.1])
    lengths = [1, 40, 0, 2 * ridge.CHUNK + 30]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    indices = np.concatenate([np.sort(rng.permutation(n_table)[:n]) for n in lengths]).astype(np.int32)
    scales = ((0.5 + rng.random(indices.size)) * rng.choice([-1, 1, 1], indices.size)).astype(np.float32)
    start = rng.standard_normal((4, k)).astype(np.float32)
    solved = start.copy()
    ridge.solve_rows(0, 4, SparseRows(indptr, indices, scales), table, spectrum, penalties, solved, block_size)
    for row in (0, 1, 3):
        own = slice(indptr[row], indptr[row + 1])
        expected = sweep_slowly(
            *(table[indices[own]].astype(np.float64), scales[own].astype(np.float64), spectrum, penalties[row]),
            *(start[row].astype(np.float64), k if lengths[row] <= block_size else block_size),
        )
        np.testing.assert_allclose(solved[row], expected, atol=1e-5)
    assert solved[2].tobytes() == start[2].tobytes()


def test_no_half_epoch_increases_the_loss() -> None:
    """Exact half epochs and sweeps, which converge to the same loss."""
    data = datasets.read("demo:60x50x1200")
    ends = []
    for block_size in (8, 3):
        config = IalsConfig(n_factors=8, block_size=block_size, unobserved_weight=0.1, reg=0.001)
        weight = unobserved_weight(data, config)
        by_user, by_item = sides_of(data, config)
        rng = np.random.default_rng(0)
        now = partial(loss, data, config)
        users, items = first_table(by_user, config, rng), first_table(by_item, config, rng)
        losses = [now(users, items)]
        for _ in range(30):
            half_epoch(by_user, items, users, weight, config)
            losses.append(now(users, items))
            half_epoch(by_item, users, items, weight, config)
            losses.append(now(users, items))
        assert (np.diff(losses) <= 1e-5 * losses[0]).all()
        assert losses[-1] < 0.7 * losses[0]
        ends.append(losses[-1])
    assert ends[1] == pytest.approx(ends[0], rel=0.01)


def test_rows_without_interactions_have_no_factors() -> None:
    """With exact half epochs and with sweeps."""
    data = datasets.read("demo:40x30x450")
    known = data.take(np.flatnonzero((data.user_rows != 3) & (data.item_rows != 5)))
    for block_size in (8, 2):
        snapshot = fit(
            known, IalsConfig(n_factors=8, n_epochs=2, block_size=block_size), np.random.default_rng(0), no_progress
        )
        assert np.flatnonzero(~snapshot.user_factors.any(axis=1)).tolist() == [3]
        assert np.flatnonzero(~snapshot.item_factors.any(axis=1)).tolist() == [5]


def test_unobserved_pairs_weigh_ten_times_the_interactions() -> None:
    """Unless the weight is set."""
    data = datasets.read("demo:40x30x450")
    assert unobserved_weight(data, IalsConfig()) * 40 * 30 == pytest.approx(10 * len(data))
    assert unobserved_weight(data, IalsConfig(unobserved_weight=0.25)) == 0.25


def test_confidences_do_not_depend_on_the_unit_of_ratings() -> None:
    """Scaling all ratings changes nothing; a negative rating is refused."""
    rows = [(0, 0, 1.0), (0, 1, 4.0), (1, 1, 3.0), (1, 2, 2.0)]
    config = IalsConfig(n_factors=2, n_epochs=3, confidence="ratings")
    plain = IalsConfig(n_factors=2, n_epochs=3)
    scores = []
    for settings, times in ((config, 1.0), (config, 2.0), (plain, 1.0)):
        data = rated([(user, item, times * rating) for user, item, rating in rows])
        snapshot = fit(data, settings, np.random.default_rng(0), no_progress)
        scores.append(snapshot.user_factors @ snapshot.item_factors.T)
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    assert scores[0][0, 1] > scores[2][0, 1] + 1e-4
    for bad in ([(0, 0, -1.0), (0, 1, 4.0)], [(0, 0, 0.0)]):
        with pytest.raises(DataError, match="cannot use ratings as confidences"):
            fit(rated(bad), config, np.random.default_rng(0), no_progress)


def test_a_gramian_of_many_rows() -> None:
    """The sum over parts is the Gramian."""
    table = np.random.default_rng(0).standard_normal((70_001, 3)).astype(np.float32)
    whole = table.astype(np.float64)
    np.testing.assert_allclose(ials.gramian(table), whole.T @ whole, rtol=1e-5, atol=0.01)
