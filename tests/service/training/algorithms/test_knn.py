import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import TrainingDiverged, UsageError
from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.training import hyperparameters
from service.training.algorithms import registry
from service.training.algorithms.knn import KnnConfig
from service.training.interactions import Interactions, ReadReport, no_progress
from tests.reference.knn import baseline_slowly, predict_slowly, shared_slowly, similarities_slowly
from tests.support.models.dense_tables import dense, every_pair, ratings

NAMES = ("knn_basic", "knn_means", "knn_baseline")
ALL = 1000
CONFIGS = [
    KnnConfig(k=ALL),
    KnnConfig(k=3),
    KnnConfig(k=3, user_based=False),
    KnnConfig(k=7, min_k=5, similarity="cosine", min_support=3),
    KnnConfig(k=ALL, similarity="cosine", user_based=False),
    KnnConfig(k=ALL, similarity="pearson"),
    KnnConfig(k=5, similarity="pearson", min_support=4, user_based=False),
    KnnConfig(k=4, min_k=2, similarity="pearson_baseline"),
    KnnConfig(k=4, similarity="pearson_baseline", shrinkage=0, min_support=5, user_based=False),
    KnnConfig(k=4, similarity="pearson_baseline", bsl_method="sgd", bsl_n_epochs=3, bsl_reg=0.1, bsl_learning_rate=0.1),
    KnnConfig(k=4, similarity="pearson_baseline", bsl_n_epochs=2, bsl_reg_u=1, bsl_reg_i=30),
]


def fitted(name: str, data: Interactions, config: KnnConfig) -> ModelSnapshot:
    return registry.get(name).fit(data, config, np.random.default_rng(0), no_progress)


def predictions(name: str, snapshot: ModelSnapshot, data: Interactions) -> NDArray[np.float64]:
    predicted = registry.get(name).predict(snapshot, *every_pair(data))
    return predicted.reshape(len(data.users), len(data.items))


def scores(snapshot: ModelSnapshot) -> NDArray[np.float64]:
    rows = np.arange(len(snapshot.items))
    return np.stack([scoring.exact_scores(snapshot, user, rows) for user in range(len(snapshot.users))])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_predictions_agree_with_the_slow_reference(name: str, config: KnnConfig) -> None:
    """Of all pairs, known or not, also of users and items without ratings."""
    # Where many are equally similar but for rounding, whole ratings make that exact, and others make it rare.
    data = ratings(whole=config.similarity in {"msd", "cosine"} and config.min_support == 1)
    expected = predict_slowly(name, dense(data), config)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(
        predictions(name, fitted(name, data, config), data),
        np.clip(expected, data.rating_min, data.rating_max),
        atol=2e-5,
    )


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_similarities_agree_with_the_slow_reference(config: KnnConfig) -> None:
    """All that are above 0 are kept if there is room for them."""
    data = ratings()
    neighbourhood = fitted(
        "knn_basic", data, hyperparameters.parse(KnnConfig, as_texts(config, n_neighbours=ALL))
    ).neighbourhood
    assert neighbourhood is not None
    expected = np.maximum(similarities_slowly(dense(data), config), 0)
    assert (expected > 0).sum() > 50
    stored = neighbourhood.weights.toarray()
    np.testing.assert_allclose(stored if config.user_based else stored.T, expected, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("user_based", [True, False])
def test_scores_without_limits_are_the_predictions(name: str, user_based: bool) -> None:
    """They differ only by the limits n_neighbours, k and min_k."""
    data = ratings()
    config = KnnConfig(k=ALL, n_neighbours=ALL, user_based=user_based)
    snapshot = fitted(name, data, config)
    served = np.clip(scores(snapshot), data.rating_min, data.rating_max)
    np.testing.assert_allclose(served, predictions(name, snapshot, data), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("user_based", [True, False])
@pytest.mark.parametrize("shrinkage", [0, 7])
def test_the_served_model_keeps_the_best_shrunk_similarities(name: str, user_based: bool, shrinkage: float) -> None:
    """Of each user or item, with ties broken by common ratings."""
    data = ratings()
    config = KnnConfig(n_neighbours=4, user_based=user_based, min_support=2, serving_shrinkage=shrinkage)
    snapshot = fitted(name, data, config)
    table = dense(data)
    similarity = similarities_slowly(table, config)
    mean, b_user, b_item = baseline_slowly(name, table, config)
    base = mean + b_user[:, np.newaxis] + b_item
    above = np.where(np.isnan(table), 0, table - base)
    shared = shared_slowly(table, config)
    order = np.lexsort((-shared, -similarity * shared / np.maximum(shared + shrinkage, 1)))
    np.put_along_axis(similarity, order[:, 4:], 0, axis=1)
    weights, residuals = (similarity, above) if user_based else (similarity, above.T)
    divisors = weights @ ((residuals != 0) if name == "knn_baseline" else (~np.isnan(table if user_based else table.T)))
    term = np.divide(weights @ residuals, divisors, out=np.zeros_like(residuals), where=divisors > 0)
    np.testing.assert_allclose(scores(snapshot), base + (term if user_based else term.T), atol=1e-5)


def test_ties_prefer_more_common_ratings() -> None:
    """All users agree with user 0, user 3 on two items; then the smaller rows come first."""
    data = made(
        users=[0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4],
        items=[0, 1, 0, 2, 0, 3, 0, 1, 2, 0, 3],
        values=[3, 4, 3, 1, 3, 2, 3, 4, 5, 3, 5],
    )
    snapshot = fitted("knn_basic", data, KnnConfig(k=1, n_neighbours=2))
    assert predictions("knn_basic", snapshot, data)[0, 2:] == pytest.approx([5, 2], abs=1e-6)
    assert snapshot.neighbourhood is not None
    assert snapshot.neighbourhood.weights.indices[:2].tolist() == [1, 3]


@pytest.mark.parametrize("similarity", ["cosine", "pearson", "pearson_baseline"])
def test_rows_without_variance_have_no_neighbours(similarity: str) -> None:
    """Zeros have no direction and equal ratings no correlation, up to rounding; the mean is predicted."""
    for rating in (0.0, 0.1):
        if similarity == "cosine" and rating:
            continue
        data = made(users=[0, 0, 0, 1, 1, 1, 2, 2], items=[0, 1, 2, 0, 1, 2, 0, 1], values=[rating] * 8, least=rating)
        snapshot = fitted("knn_basic", data, KnnConfig(similarity=similarity))
        assert snapshot.neighbourhood is not None
        assert snapshot.neighbourhood.weights.nnz == 0
        np.testing.assert_allclose(predictions("knn_basic", snapshot, data), rating, atol=1e-6)


def test_divergence_of_the_baseline_names_the_setting() -> None:
    """Also if only the similarity needs a baseline."""
    config = KnnConfig(similarity="pearson_baseline", bsl_method="sgd", bsl_learning_rate=5)
    with pytest.raises(TrainingDiverged, match="bsl_learning_rate=5"):
        fitted("knn_means", ratings(), config)


def test_an_unknown_similarity_is_refused() -> None:
    """The message names the known ones."""
    with pytest.raises(UsageError, match="similarity must be cosine, msd, pearson or pearson_baseline"):
        KnnConfig(similarity="jaccard")


def as_texts(config: KnnConfig, **changes: object) -> list[str]:
    return [f"{name}={value}" for name, value in (vars(config) | changes).items()]


def made(*, users: list[int], items: list[int], values: list[float], least: float = 1.0) -> Interactions:
    return Interactions(
        users=Vocabulary([f"u{row}" for row in range(max(users) + 1)]),
        items=Vocabulary([f"i{row}" for row in range(max(items) + 1)]),
        user_rows=np.array(users, dtype=np.int32),
        item_rows=np.array(items, dtype=np.int32),
        ratings=np.array(values, dtype=np.float32),
        timestamps=None,
        rating_min=least,
        rating_max=5.0,
        fingerprint="sha256:0",
        report=ReadReport(source="made up"),
    )
