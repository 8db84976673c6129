import numpy as np
import pytest

from service.errors import TrainingDiverged
from service.training.algorithms.baseline import ALGORITHMS, NAME, BaselineConfig, fit
from service.training.interactions import no_progress
from tests.reference.baseline import estimate_slowly
from tests.support.models.dense_tables import dense, every_pair, ratings


@pytest.mark.parametrize(
    "config",
    [
        BaselineConfig(),
        BaselineConfig(n_epochs=3, reg_u=2.5, reg_i=0.0),
        BaselineConfig(method="sgd"),
        BaselineConfig(method="sgd", n_epochs=2, reg=0.3, learning_rate=0.05),
    ],
)
def test_the_kernel_agrees_with_the_slow_reference(config: BaselineConfig) -> None:
    """Mean, biases and predictions, also for users and items without ratings."""
    data = ratings()
    snapshot = fit(data, config, np.random.default_rng(0), no_progress)
    mean, b_user, b_item = estimate_slowly(dense(data), config)
    assert snapshot.global_mean == pytest.approx(mean, rel=1e-9)
    np.testing.assert_allclose(snapshot.user_bias, b_user, atol=1e-6)
    np.testing.assert_allclose(snapshot.item_bias, b_item, atol=1e-6)
    assert not b_user[:2].any()
    assert not b_item[:2].any()
    expected = np.clip(mean + b_user[:, np.newaxis] + b_item, data.rating_min, data.rating_max)
    np.testing.assert_allclose(ALGORITHMS[NAME].predict(snapshot, *every_pair(data)), expected.ravel(), atol=1e-6)


def test_the_epochs_are_those_of_the_method() -> None:
    """10 by als, 20 by sgd, or the number that is set."""
    for config, n_epochs in (
        (BaselineConfig(), 10),
        (BaselineConfig(method="sgd"), 20),
        (BaselineConfig(n_epochs=3), 3),
    ):
        seen: list[tuple[str, int, int]] = []
        fit(ratings(), config, np.random.default_rng(0), lambda *step, seen=seen: seen.append(step))
        assert seen == [("fit", done, n_epochs) for done in range(n_epochs + 1)]


def test_divergence_names_the_epoch_and_the_learning_rate() -> None:
    """The person can lower it."""
    with pytest.raises(TrainingDiverged, match=r"in epoch \d+ of 20 with learning_rate=5; lower it"):
        fit(ratings(), BaselineConfig(method="sgd", learning_rate=5), np.random.default_rng(0), no_progress)
