from pathlib import Path

import numpy as np
import pytest

from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.factors import visit_order
from service.training.algorithms.predictions import predict
from service.training.algorithms.svd import SvdConfig, fit
from service.training.data import datasets
from service.training.interactions import no_progress
from tests.reference.svd import fit_slowly

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize(
    "config",
    [
        SvdConfig(n_factors=10, n_epochs=5),
        SvdConfig(n_factors=8, n_epochs=3, init_mean=0.1, init_std_dev=0.3),
        SvdConfig(n_factors=3, n_epochs=4, biased=False, init_mean=0.5),
        SvdConfig(n_factors=17, n_epochs=2, lr_bu=0.1, lr_bi=0.02, lr_pu=0.03, lr_qi=0.04, reg_bu=0.5, reg_bi=0.4),
        SvdConfig(n_factors=1, n_epochs=3, reg_pu=0.3, reg_qi=0.2, lr_all=0.02),
        SvdConfig(n_factors=5, n_epochs=3, n_groups=3),
    ],
)
def test_the_kernel_agrees_with_the_slow_reference(config: SvdConfig) -> None:
    """Float32 in lanes and float64 one step at a time give the same tables."""
    data = datasets.read("demo:30x20x300")
    snapshot = fit(data, config, np.random.default_rng(7), no_progress)
    mean, tables = fit_slowly(data, config, np.random.default_rng(7))
    assert snapshot.global_mean == pytest.approx(mean, rel=1e-6)
    np.testing.assert_allclose(snapshot.user_factors, tables.user_factors, atol=2e-5)
    np.testing.assert_allclose(snapshot.item_factors, tables.item_factors, atol=2e-5)
    np.testing.assert_allclose(snapshot.user_bias, tables.user_bias, atol=2e-5)
    np.testing.assert_allclose(snapshot.item_bias, tables.item_bias, atol=2e-5)


def test_threads_over_a_grid_change_no_byte() -> None:
    """Any number of threads gives the same bytes, which agree with the reference over the same order."""
    data = datasets.read("demo:300x200x9000")
    config = SvdConfig(n_factors=5, n_epochs=2, lr_all=0.02)
    assert visit_order.in_grid(data, np.random.default_rng(7), 9000).bounds.shape == (4, 5)
    snapshots = []
    for n_threads in (1, 4):
        with threads.limit(n_threads):
            snapshots.append(fit(data, config, np.random.default_rng(7), no_progress, min_grid_ratings=9000))
    assert snapshots[0].user_factors.tobytes() == snapshots[1].user_factors.tobytes()
    assert snapshots[0].item_factors.tobytes() == snapshots[1].item_factors.tobytes()
    _, tables = fit_slowly(data, config, np.random.default_rng(7), 9000)
    np.testing.assert_allclose(snapshots[1].user_factors, tables.user_factors, atol=2e-5)
    np.testing.assert_allclose(snapshots[1].item_factors, tables.item_factors, atol=2e-5)


def test_unknown_pairs_get_the_mean_without_biases() -> None:
    """Factors alone predict nothing for a user or an item without ratings."""
    data = datasets.read("demo:30x20x300")
    known = data.take(np.flatnonzero((data.user_rows != 0) & (data.item_rows != 0)))
    snapshot = fit(known, SvdConfig(n_factors=4, biased=False), np.random.default_rng(0), no_progress)
    assert snapshot.global_mean == 0
    assert not snapshot.user_bias.any()
    predicted = predict(snapshot, np.array([0, 0, 5], dtype=np.int32), np.array([0, 3, 0], dtype=np.int32))
    assert predicted == pytest.approx([known.ratings.mean()] * 3, rel=1e-6)
