import numpy as np
import pytest

from service.training.algorithms.kernels.factors import visit_order
from service.training.algorithms.predictions import predict
from service.training.algorithms.svdpp import SvdppConfig, first_tables, fit
from service.training.data import datasets
from service.training.interactions import no_progress
from tests.reference.svdpp import fit_slowly


@pytest.mark.parametrize(
    "config",
    [
        SvdppConfig(n_factors=10, n_epochs=5),
        SvdppConfig(n_factors=8, n_epochs=3, init_mean=0.1, init_std_dev=0.3, reg_all=0.1),
        SvdppConfig(n_factors=3, n_epochs=4, lr_yj=0.1, reg_yj=2.0, reg_qi=0.3),
        SvdppConfig(n_factors=17, n_epochs=2, lr_bu=0.1, lr_bi=0.02, lr_pu=0.03, lr_qi=0.04, reg_bu=0.5, reg_bi=0.4),
        SvdppConfig(n_factors=1, n_epochs=3, reg_pu=0.3, lr_all=0.02),
    ],
)
def test_the_kernel_agrees_with_the_slow_reference(config: SvdppConfig) -> None:
    """One update per user of the implicit factors equals one per rating."""
    data = datasets.read("demo:30x20x300")
    snapshot = fit(data, config, np.random.default_rng(7), no_progress)
    mean, tables = fit_slowly(data, config, np.random.default_rng(7))
    assert snapshot.global_mean == pytest.approx(mean, rel=1e-6)
    np.testing.assert_allclose(snapshot.user_factors, tables.user_factors, atol=2e-5)
    np.testing.assert_allclose(snapshot.item_factors, tables.item_factors, atol=2e-5)
    np.testing.assert_allclose(snapshot.user_bias, tables.user_bias, atol=2e-5)
    np.testing.assert_allclose(snapshot.item_bias, tables.item_bias, atol=2e-5)


def test_user_factors_include_the_implicit_ones() -> None:
    """Without learning, they are the initial factors plus those of the rated items."""
    data = datasets.read("demo:30x20x300")
    frozen = SvdppConfig(n_factors=4, n_epochs=1, lr_all=0.0, init_std_dev=0.5)
    snapshot = fit(data, frozen, np.random.default_rng(0), no_progress)
    rng = np.random.default_rng(0)
    visit_order.user_by_user(data, rng)
    tables, implicit_factors = first_tables(data, frozen, rng)
    rated = data.item_rows[data.user_rows == 5]
    implicit = implicit_factors[rated].sum(axis=0) / np.sqrt(rated.size)
    assert snapshot.user_factors[5] == pytest.approx((tables.user_factors[5] + implicit)[:4], abs=1e-6)


def test_a_user_without_ratings_gets_the_baseline_of_items() -> None:
    """Item factors alone contribute nothing."""
    data = datasets.read("demo:30x20x300")
    known = data.take(np.flatnonzero(data.user_rows != 0))
    snapshot = fit(known, SvdppConfig(n_factors=4), np.random.default_rng(0), no_progress)
    items = np.arange(5, dtype=np.int32)
    predicted = predict(snapshot, np.zeros(5, dtype=np.int32), items)
    assert predicted == pytest.approx(snapshot.global_mean + snapshot.item_bias[:5], rel=1e-6)
    assert not snapshot.user_factors[0].any()


def test_the_defaults_are_those_of_scikit_surprise() -> None:
    """Names and values."""
    assert SvdppConfig() == SvdppConfig(
        n_factors=20, n_epochs=20, init_mean=0.0, init_std_dev=0.1, lr_all=0.007, reg_all=0.02
    )
