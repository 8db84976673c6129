import numpy as np
import pytest

from service.errors import UsageError
from service.models.ranking import scoring
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.evaluation import measurement, splits
from service.training.evaluation.measures.per_user import MeasureName, all_measures
from service.training.evaluation.measures.prediction_error import mae, rmse
from service.training.evaluation.top_n_lists import top_n_lists
from service.training.interactions import Interactions, no_progress

SVD = ConfiguredAlgorithm.parse("svd", ["n_factors=4", "n_epochs=5"])


@pytest.fixture(scope="module")
def sides() -> tuple[Interactions, Interactions]:
    data = datasets.read("demo:60x40x900")
    kept, held = splits.hold_out(len(data), 0.2, np.random.default_rng(0)) or (None, None)
    assert kept is not None
    assert held is not None
    return data.take(kept), data.take(held)


def measure(
    sides: tuple[Interactions, Interactions], *names: str, candidate: ConfiguredAlgorithm = SVD
) -> dict[str, float]:
    return measurement.fit_and_measure(candidate, *sides, np.random.default_rng(1), measures=names)


def test_errors_are_those_of_the_predictions(sides: tuple[Interactions, Interactions]) -> None:
    """In the order asked for; the same generator gives the same values."""
    train, test = sides
    snapshot = SVD.algorithm.fit(train, SVD.config, np.random.default_rng(1), no_progress)
    predicted = SVD.algorithm.predict(snapshot, test.user_rows, test.item_rows)
    values = measure(sides, "mae", "rmse")
    assert list(values) == ["mae", "rmse"]
    assert values == pytest.approx({"mae": mae(predicted, test.ratings), "rmse": rmse(predicted, test.ratings)})
    assert values == measure(sides, "mae", "rmse")


def test_lists_are_those_of_a_replica(sides: tuple[Interactions, Interactions]) -> None:
    """One by one or many at a time, and without training items; recall counted by hand."""
    train, test = sides
    snapshot = SVD.algorithm.fit(train, SVD.config, np.random.default_rng(1), no_progress)
    users = np.unique(test.user_rows).astype(np.int64)
    table = top_n_lists(snapshot, users, 35)
    recalls = []
    for user, row in zip(users.tolist(), table, strict=True):
        served = scoring.personal(snapshot, [scoring.TopNRequest(user, 35)])[0].rows
        assert row.tolist() == [*served.tolist(), *[-1] * (35 - served.size)]
        assert not set(served.tolist()) & set(train.item_rows[train.user_rows == user].tolist())
        wanted = test.item_rows[test.user_rows == user]
        recalls.append(np.isin(wanted, served[:7]).mean())
    assert -1 in table
    assert measure(sides, "recall@7")["recall@7"] == pytest.approx(float(np.mean(recalls)))


def test_every_measure_has_a_value_and_a_direction(sides: tuple[Interactions, Interactions]) -> None:
    """By the names of an evaluation."""
    names = [str(name) for name in all_measures((5, 10))]
    values = measure(sides, *names)
    assert list(values) == names
    assert np.isfinite(list(values.values())).all()
    lower = {name.family for text in names if (name := MeasureName.parse(text)).lower_is_better}
    assert lower == {"rmse", "mae", "gini", "popularity_bias"}


def test_fewer_users_are_the_same_ones_for_every_candidate(sides: tuple[Interactions, Interactions]) -> None:
    """The sample does not depend on the candidate."""
    few = [
        measurement.fit_and_measure(SVD, *sides, np.random.default_rng(seed), measures=["novelty@5"], most_users=3)[
            "novelty@5"
        ]
        for seed in (1, 1)
    ]
    assert few[0] == few[1]
    assert few[0] != measure(sides, "novelty@5")["novelty@5"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("magic", "no measure 'magic'; the measures are rmse, mae, precision@k"),
        ("magic@10", "no measure 'magic@10'"),
        ("rmse@10", "no measure 'rmse@10'"),
        ("ndcg", "needs the length of the lists: ndcg@10"),
        ("ndcg@0", "needs the length"),
        ("ndcg@501", "at most 500"),
        ("ndcg@1.5", "needs the length"),
    ],
)
def test_unknown_measures(sides: tuple[Interactions, Interactions], name: str, sentence: str) -> None:
    """Refused before anything is fitted."""
    with pytest.raises(UsageError, match=sentence):
        measure(sides, name)


def test_undefined_measures_are_refused(sides: tuple[Interactions, Interactions]) -> None:
    """An error of an algorithm without predictions, and lists without a relevant item."""
    with pytest.raises(UsageError, match="popularity ranks and predicts no ratings, so that it has no rmse"):
        measure(sides, "ndcg@5", "rmse", candidate=ConfiguredAlgorithm.parse("popularity"))
    with pytest.raises(UsageError, match="No held-out item is relevant"):
        measurement.fit_and_measure(SVD, *sides, np.random.default_rng(0), measures=["ndcg@5"], relevant_from=9)
