import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.errors import UsageError
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.evaluation import measurement, split_dataset
from service.training.evaluation.comparison import compare
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.interactions import Interactions, Progress, no_progress
from tests.support.interactions import rated

DEMO = "demo:60x40x900"
SMALL = ConfiguredAlgorithm.parse("svd", ["n_factors=4", "n_epochs=5"])
LABELS = ("svd n_factors=4 n_epochs=5", "svd n_factors=8 n_epochs=20")
LARGE = ConfiguredAlgorithm.parse("svd", ["n_factors=8"])


def evaluated(
    candidates: list[ConfiguredAlgorithm],
    protocol: EvaluationProtocol,
    data: Interactions | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    data = datasets.read(DEMO) if data is None else data
    return compare(split_dataset.split(data, protocol), candidates, protocol, progress=progress)


@pytest.fixture(scope="module")
def comparison() -> dict[str, Any]:
    return evaluated([SMALL, LARGE], EvaluationProtocol(folds=4, seed=1, ks=(5, 10), n_negatives=7))


def test_the_keys_of_the_result(comparison: dict[str, Any]) -> None:
    """Per algorithm settings, measures with interval, groups, seconds, bytes; plain JSON throughout."""
    assert list(comparison) == ["data", "protocol", "results", "comparisons", "leakage", "notes"]
    assert comparison["data"]["n_ratings"] == 900
    assert [comparison["protocol"][name] for name in ("split", "folds", "seed", "k")] == ["folds", 4, 1, [5, 10]]
    for result, candidate in zip(comparison["results"], [SMALL, LARGE], strict=False):
        assert list(result) == [
            *("algorithm", "label", "kind", "settings", "measures", "groups", "fit_s", "predict_s", "rank_s"),
            *("model_bytes", "peak_bytes", "failed", "list_us", "pairwise_list_us", "learning_curves"),
        ]
        assert result["settings"]["n_factors"] == candidate.config.n_factors
        for name, measure in result["measures"].items():
            assert len(measure["folds"]) == 4, name
            assert measure["mean"] == pytest.approx(np.mean(measure["folds"]))
            assert measure["ci95"][0] <= measure["mean"] <= measure["ci95"][1]
        assert result["fit_s"] > 0
        assert result["peak_bytes"] > result["model_bytes"] > 60 * 4 * 4
        assert 0 < result["list_us"] < result["pairwise_list_us"]
        assert set(result["groups"]["users"]) == {"light", "medium", "heavy"}
        assert set(result["groups"]["items"]["tail"]) == {"n", "rmse", "ndcg@5", "recall@5", "share_of_lists@5"}
    assert json.loads(json.dumps(comparison, allow_nan=False)) == comparison


def test_the_names_of_the_measures(comparison: dict[str, Any]) -> None:
    """Under the names of docs/evaluation.md, with each k; those among sampled items have their own names."""
    expected = {"rmse", "mae", "mrr"}
    expected |= {
        f"{family}@{k}"
        for family in (
            *("precision", "recall", "map", "ndcg", "mrr", "hit_rate"),
            *("coverage", "gini", "novelty", "popularity_bias"),
        )
        for k in (5, 10)
    }
    expected |= {f"sampled7_{family}@{k}" for family in ("hit_rate", "ndcg", "mrr", "recall") for k in (5, 10)}
    measures = comparison["results"][0]["measures"]
    assert set(measures) == expected
    assert measures["mrr"] == measures["mrr@10"]
    assert any(note.startswith("Measures named sampled7_") for note in comparison["notes"])


def test_the_popularity_baseline_is_always_compared(comparison: dict[str, Any]) -> None:
    """Last if it was not asked for, once if it was; it predicts no ratings."""
    assert [result["label"] for result in comparison["results"]] == [*LABELS, "popularity"]
    baseline = comparison["results"][-1]
    assert baseline["kind"] == "ranking"
    assert baseline["predict_s"] is None
    assert not {"rmse", "mae"} & set(baseline["measures"])
    assert "rmse" not in baseline["groups"]["users"]["light"]
    request = evaluated([ConfiguredAlgorithm.parse("popularity"), SMALL], EvaluationProtocol(folds=2))
    assert [result["algorithm"] for result in request["results"]] == ["popularity", "svd"]


def test_every_pair_with_a_common_measure_is_compared(comparison: dict[str, Any]) -> None:
    """Errors for the two that predict ratings, lists for all three; differences are those of the means."""
    pairs = comparison["comparisons"]
    means = {result["label"]: result["measures"] for result in comparison["results"]}
    assert [(pair["a"], pair["b"]) for pair in pairs if pair["measure"] == "rmse"] == [LABELS]
    assert len([pair for pair in pairs if pair["measure"] == "ndcg@5"]) == 3
    assert {pair["measure"] for pair in pairs} == {"rmse", "mae", "ndcg@5", "ndcg@10", "recall@5", "recall@10"}
    for pair in pairs:
        a, b = (means[pair[side]][pair["measure"]]["mean"] for side in "ab")
        assert pair["difference"] == pytest.approx(a - b)
        assert pair["ci95"][0] <= pair["difference"] <= pair["ci95"][1]
        assert 0 < pair["p"] <= pair["p_holm"] <= 1


def test_a_single_measurement_is_the_same(comparison: dict[str, Any]) -> None:
    """A search measures a split as an evaluation does."""
    protocol = EvaluationProtocol(folds=4, seed=1, ks=(5, 10))
    (train, test), *_ = split_dataset.split(datasets.read(DEMO), protocol).splits()
    measures = comparison["results"][0]["measures"]
    names = [name for name in measures if not name.startswith("sampled") and name != "mrr"]
    values = measurement.fit_and_measure(
        SMALL, train, test, np.random.default_rng(protocol.seeds().fits[0]), measures=names
    )
    assert values == pytest.approx({name: measures[name]["folds"][0] for name in names})


def test_the_same_seed_gives_the_same_measures() -> None:
    """And an algorithm's figures do not depend on what it is compared with."""
    protocols = [EvaluationProtocol(folds=3, n_negatives=4, most_users=20, seed=seed) for seed in (0, 0, 1)]
    alone, both, other = (
        next(
            result for result in evaluated(candidates, protocol)["results"] if result["settings"].get("n_factors") == 4
        )
        for candidates, protocol in zip(([SMALL], [LARGE, SMALL], [SMALL]), protocols, strict=True)
    )
    assert alone["measures"] == both["measures"] != other["measures"]
    assert alone["groups"] == both["groups"]


def test_a_factor_model_beats_the_baselines() -> None:
    """On data with genres it beats the mean and the biases significantly."""
    data = datasets.read("demo")
    biases_only = ConfiguredAlgorithm.parse("svd", ["n_factors=1", "init_std_dev=0"])
    comparison = evaluated([ConfiguredAlgorithm.parse("svd"), biases_only], EvaluationProtocol(), data)
    learnt, biases = (result["measures"]["rmse"]["mean"] for result in comparison["results"][:2])
    assert learnt < 0.75 * float(data.ratings.std())
    assert learnt < 0.85 * biases
    (pair,) = (pair for pair in comparison["comparisons"] if pair["measure"] == "rmse")
    assert pair["ci95"][1] < 0
    assert pair["p_holm"] < 0.001


@pytest.mark.parametrize("split", ["leave-one-out", "time", "time-per-user"])
def test_a_single_split(split: str) -> None:
    """Errors have the bootstrap's interval; measures of all lists together have none."""
    updates: list[tuple[int, int]] = []
    comparison = evaluated(
        [SMALL], EvaluationProtocol(split=split), progress=lambda stage, done, total: updates.append((done, total))
    )
    measures = comparison["results"][0]["measures"]
    assert comparison["protocol"]["folds"] == len(measures["rmse"]["folds"]) == 1
    assert measures["rmse"]["ci95"][0] < measures["rmse"]["mean"] < measures["rmse"]["ci95"][1]
    assert measures["coverage@10"]["ci95"] is None
    assert updates == [(0, 2), (1, 2), (2, 2)]
    older = comparison["leakage"]["older_than_own_training"]
    assert older == 0 or split == "time-per-user"
    assert comparison["leakage"]["in_history"] == {"svd": 0, "popularity": 0}


def test_a_model_with_leakage_is_named() -> None:
    """Its history holds held-out pairs."""
    data = datasets.read(DEMO)

    def fit(_: Interactions, config: Any, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
        return SMALL.algorithm.fit(data, config, rng, progress)

    leaking = ConfiguredAlgorithm("leaking", SMALL.config, replace(SMALL.algorithm, fit=fit))
    comparison = evaluated([leaking], EvaluationProtocol(split="leave-one-out"), data)
    n_held_out = comparison["leakage"]["test_interactions"]
    assert comparison["leakage"]["in_history"] == {"leaking": n_held_out, "popularity": 0}
    assert any(note.startswith(f"The history of leaking holds {n_held_out}") for note in comparison["notes"])


def test_the_result_describes_relevance() -> None:
    """Users without a relevant item are counted, in the protocol and in a note; likewise a sample of users."""
    comparison = evaluated([SMALL], EvaluationProtocol(split="leave-one-out", relevant_from=4, most_users=10))
    protocol = comparison["protocol"]
    assert protocol["relevant"] == "held-out interactions rated at least 4"
    assert protocol["judged_users"] == 10
    assert protocol["users_without_relevant"] > 0
    assert any("without a relevant item" in note for note in comparison["notes"])
    assert any("10 sampled users" in note for note in comparison["notes"])
    with pytest.raises(UsageError, match="No held-out item is relevant"):
        evaluated([SMALL], EvaluationProtocol(relevant_from=9))


def test_data_without_ratings() -> None:
    """Errors of equal ratings are null, with a note; lists are judged as usual."""
    rng = np.random.default_rng(0)
    pairs = sorted({(int(user), int(item)) for user, item in rng.integers(0, 15, size=(120, 2))})
    comparison = evaluated([SMALL], EvaluationProtocol(folds=2), rated([(user, item, 1.0) for user, item in pairs]))
    assert any(note.startswith("All ratings are equal") for note in comparison["notes"])
    assert (
        "The data has the rating 1 throughout: the lists of algorithms that learn from ratings (svd) are mostly noise."
        in (comparison["notes"])
    )
    measures = comparison["results"][0]["measures"]
    assert measures["rmse"] == measures["mae"] == {"mean": None, "ci95": None, "folds": [None, None]}
    assert comparison["protocol"]["rmse_of_mean"] is None
    assert measures["ndcg@10"]["mean"] > 0
    assert measures["recall@10"]["mean"] > 0
    assert measures["recall@20"]["mean"] is None
    assert any(note.startswith("A list of 20 holds all 15 items, so that precision@20") for note in comparison["notes"])


def test_a_failure_affects_its_own_algorithm_only() -> None:
    """With any error, on any split; the others are compared without it."""
    calls = 0

    def breaks(data: Interactions, config: Any, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
        nonlocal calls
        calls += 1
        if calls == 3:  # after the warm-up and the first split
            raise np.linalg.LinAlgError("Singular matrix")
        return SMALL.algorithm.fit(data, config, rng, progress)

    diverging = ConfiguredAlgorithm.parse("svd", ["lr_all=9", "n_factors=4"])
    broken = ConfiguredAlgorithm("broken", SMALL.config, replace(SMALL.algorithm, fit=breaks))
    comparison = evaluated([diverging, broken, SMALL], EvaluationProtocol(folds=3))
    diverged, broke, whole, popularity = comparison["results"]
    assert "diverged in epoch" in diverged["failed"]
    assert broke["failed"] == "LinAlgError: Singular matrix"
    for result in (diverged, broke):
        assert result["measures"] == {}
        assert (result["fit_s"], result["list_us"]) == (None, None)
    assert whole["failed"] is popularity["failed"] is None
    assert {pair["a"] for pair in comparison["comparisons"]} == {whole["label"]}
    assert sum("failed and has no measures" in note for note in comparison["notes"]) == 2
    json.dumps(comparison, allow_nan=False)


def test_a_model_worse_than_the_mean_is_named() -> None:
    """With both errors."""
    poor = ConfiguredAlgorithm.parse("svd", ["n_factors=4", "n_epochs=1", "init_std_dev=3", "lr_all=0"])
    comparison = evaluated([poor, ConfiguredAlgorithm.parse("baseline")], EvaluationProtocol(folds=2))
    mean = comparison["protocol"]["rmse_of_mean"]
    assert comparison["results"][0]["measures"]["rmse"]["mean"] > mean
    notes = [note for note in comparison["notes"] if "worse than the mean rating alone" in note]
    assert len(notes) == 1
    assert notes[0].startswith("svd is worse than")
    assert notes[0].endswith(f"{mean:.4f}.")


def test_nothing_to_compare() -> None:
    """No algorithm, or too few ratings for the folds, is refused."""
    with pytest.raises(UsageError, match="No algorithm"):
        evaluated([], EvaluationProtocol())
    with pytest.raises(UsageError, match="3 ratings cannot be split into 5 folds"):
        evaluated([SMALL], EvaluationProtocol(), rated([(0, 0, 1), (1, 1, 2), (2, 0, 3)]))
