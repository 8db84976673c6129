import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ops.benchmarks import cli
from ops.benchmarks.fits import training_scale
from ops.benchmarks.peers import contest, pairs, peer, peer_comparison
from ops.benchmarks.peers.contest import Contest, ContestPlan, Side
from ops.benchmarks.peers.pairs import PAIRS, Pair
from ops.benchmarks.peers.peer import Seconds
from ops.benchmarks.peers.peer_program import Fold
from service.errors import DataError, RunError, UsageError
from service.models.vocabulary import Vocabulary
from service.training.algorithms import registry
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.data.demo import DemoSize
from service.training.evaluation import measurement, split_dataset
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.interactions import Interactions, ReadReport

PEERS_PYTHON = Path(__file__).resolve().parents[4] / ".venv-peers" / "bin" / "python"
SVD = Pair("svd", "surprise", "SVD", "predict")
DATA = "demo:120x60x2400"


def _plan(
    *candidates: ConfiguredAlgorithm, libraries: tuple[str, ...] = (), python: Path = PEERS_PYTHON, folds: int = 2
) -> ContestPlan:
    return ContestPlan(candidates, EvaluationProtocol(folds=folds, seed=3), python, libraries)


def _run(plan: ContestPlan) -> tuple[Contest, list[str]]:
    said: list[str] = []
    return contest.run(plan, split_dataset.split(datasets.read(DATA), plan.protocol), said.append), said


def _side(seconds: list[float], **measures: list[float]) -> Side:
    return Side(dict(measures), [Seconds(fit_s=s, fit_cpu_s=s / 2, answer_s=1, answer_cpu_s=1) for s in seconds])


def _of_shape(n_users: int, n_items: int, n_ratings: int) -> Interactions:
    rows = np.arange(n_ratings, dtype=np.int32)
    return Interactions(
        users=Vocabulary(map(str, range(n_users))),
        items=Vocabulary(map(str, range(n_items))),
        user_rows=rows % n_users,
        item_rows=rows % n_items,
        ratings=np.ones(n_ratings, np.float32),
        timestamps=None,
        rating_min=1,
        rating_max=5,
        fingerprint="",
        report=ReadReport(source="made"),
    )


def test_every_pair_has_a_known_algorithm() -> None:
    """Pairs are unique."""
    assert set(pairs.algorithms()) <= set(registry.names())
    assert len(set(PAIRS)) == len(PAIRS)
    assert {pair.library for pair in PAIRS} == set(pairs.LIBRARIES)


def test_our_models_are_measured_as_in_a_trial() -> None:
    """The same folds, fits and measures: one value per fold and measure."""
    svd, popularity = (
        ConfiguredAlgorithm.parse("svd", ["n_epochs=3", "n_factors=8"]),
        ConfiguredAlgorithm.parse("popularity"),
    )
    plan = _plan(svd, popularity)
    contest, said = _run(plan)
    assert not contest.by_pair
    assert len(said) == 4
    assert said[0].startswith("fold 1: recollect svd: rmse ")
    splits = list(split_dataset.split(datasets.read(DATA), plan.protocol).splits())
    asked: tuple[tuple[ConfiguredAlgorithm, pairs.Task], ...] = ((svd, "predict"), (popularity, "rank"))
    for candidate, ask in asked:
        measured = contest.own[candidate.name, ask].measures
        assert tuple(measured) == pairs.MEASURES[ask]
        for fold, (train, test) in enumerate(splits):
            rng = np.random.default_rng(plan.protocol.seeds().fits[fold])
            expected = measurement.fit_and_measure(candidate, train, test, rng, measures=pairs.MEASURES[ask])
            assert {name: values[fold] for name, values in measured.items()} == pytest.approx(expected, rel=1e-12)
    assert contest.n_listed == sum(np.unique(test.user_rows).size for _, test in splits)


def test_results_are_plain_json() -> None:
    """With the settings and the seconds of each fold; a table has one row."""
    plan = _plan(ConfiguredAlgorithm.parse("svd", ["n_epochs=2", "n_factors=4"]))
    contest, _ = _run(plan)
    data = datasets.read(DATA)
    figures = json.loads(json.dumps(peer_comparison.figures(contest, plan, data)))
    (result,) = figures["results"]
    assert result["algorithm"] == "svd"
    assert result["settings"]["n_factors"] == 4
    assert result["measures"]["rmse"]["mean"] == pytest.approx(np.mean(result["measures"]["rmse"]["folds"]))
    assert len(result["fit_s"]) == len(result["answer_cpu_s"]) == 2
    assert figures["bounds"] == []
    ((_, headings, rows),) = peer_comparison.tables(contest, data)
    assert [len(row) for row in rows] == [len(headings)]
    assert rows[0][:3] == ["svd", "", "2"]


def test_only_folds_of_both_sides_are_compared() -> None:
    """A peer with one turn is compared with our first fold, in errors and in seconds."""
    contest = Contest()
    contest.own["svd", "predict"] = _side([1, 9], rmse=[0.9, 0.5], mae=[0.7, 0.4])
    contest.by_pair[SVD] = _side([7], rmse=[0.8], mae=[0.75])
    data = _of_shape(3, 4, 5)
    figures = peer_comparison.figures(contest, _plan(ConfiguredAlgorithm.parse("svd"), libraries=("surprise",)), data)
    (against,) = figures["results"][0]["peers"]
    assert against["difference"] == pytest.approx({"rmse": 0.1, "mae": -0.05})
    assert against["times_less"] == pytest.approx((7 + 1) / (1 + 1))
    assert against["times_less_cpu"] == pytest.approx((3.5 + 1) / (0.5 + 1))
    ((_, headings, rows),) = peer_comparison.tables(contest, data)
    assert dict(zip(headings[:5], rows[0], strict=False)) == {
        "algorithm": "svd",
        "peer": "surprise SVD",
        "folds": "1",
        "rmse": "0.9000",
        "peer's": "0.8000",
    }


def test_a_bound_is_the_peers_error_and_a_margin() -> None:
    """Of scikit-surprise only."""
    contest = Contest()
    contest.own["svd", "predict"] = _side([1], rmse=[0.8749], mae=[0.6881])
    contest.by_pair[SVD] = _side([1], rmse=[0.874], mae=[0.686])
    contest.by_pair[Pair("svd", "lenskit", "BiasedMF", "predict")] = _side([1], rmse=[0.1], mae=[0.1])
    asked = list(peer_comparison.bounds(contest, _of_shape(3, 4, 5), EvaluationProtocol()))
    assert [(one.name, one.holds) for one in asked] == [("svd rmse against SVD", True), ("svd mae against SVD", False)]
    assert [sentence.split(":")[0] for sentence in peer_comparison.verdicts(asked)] == ["holds", "MISSED"]


def test_only_five_folds_of_movielens_1m_have_bounds_on_time() -> None:
    """On the sum over all folds, fitting and predicting."""
    contest = Contest()
    contest.own["svd", "predict"] = _side([2, 2, 2, 2, 2.5], rmse=[0.9] * 5, mae=[0.7] * 5)
    contest.own["svd", "rank"] = _side([99] * 5)
    whole = _of_shape(*pairs.MOVIELENS_1M)
    (asked,) = peer_comparison.bounds(contest, whole, EvaluationProtocol())
    assert (asked.value, asked.limit, asked.holds) == (15.5, 15.0, False)
    assert not list(peer_comparison.bounds(contest, whole, EvaluationProtocol(folds=3)))
    assert not list(peer_comparison.bounds(contest, whole, EvaluationProtocol(split="time")))
    assert not list(peer_comparison.bounds(contest, _of_shape(3, 4, 5), EvaluationProtocol()))


def test_published_figures_stand_beside_movielens_100k() -> None:
    """In the table of predictions only."""
    contest = Contest()
    contest.own["svd", "predict"] = _side([1], rmse=[0.93], mae=[0.73])
    contest.own["ials", "rank"] = _side([1], **{"recall@20": [0.2], "ndcg@20": [0.3]})
    predicted, ranked = peer_comparison.tables(contest, _of_shape(*pairs.MOVIELENS_100K))
    assert (predicted[1][-1], predicted[2][0][-1]) == ("published", "0.934 / 0.737")
    assert len(ranked[2][0]) == len(ranked[1])
    ((_, headings, _), _) = peer_comparison.tables(contest, _of_shape(3, 4, 5))
    assert "published" not in headings


def test_the_slow_peer_has_fewer_turns() -> None:
    """A peer of another library has none."""
    slow = Pair("svdpp", "surprise", "SVDpp", "predict")
    plan = ContestPlan((), EvaluationProtocol(), PEERS_PYTHON, ("surprise",), peer_folds=2, slow_folds=1)
    assert [plan.has_turn(SVD, fold) for fold in range(3)] == [True, True, False]
    assert [plan.has_turn(slow, fold) for fold in range(3)] == [True, False, False]
    assert [pair.library for pair in plan.pairs("svd")] == ["surprise"]
    assert pairs.libraries("none") == []
    with pytest.raises(UsageError, match="There is no peer 'lightfm'"):
        pairs.libraries("surprise, lightfm")


def test_a_peer_that_ranks_is_as_large_as_ours() -> None:
    """One that predicts has its defaults; explicit settings win over both."""
    ials = ConfiguredAlgorithm.parse("ials", ["n_factors=24", "n_epochs=7"])
    als = Pair("ials", "implicit", "ALS", "rank")
    plan = ContestPlan(
        (ials,),
        EvaluationProtocol(),
        PEERS_PYTHON,
        peer_settings=pairs.peer_settings(["ALS.alpha=2.5", "ALS.factors=9"]),
    )
    assert plan.settings(als, ials.config) == {"factors": 9, "iterations": 7, "alpha": 2.5}
    assert plan.settings(SVD, ConfiguredAlgorithm.parse("svd").config) == {}
    for (model, ask), shared in pairs.SHARED.items():
        for pair in (pair for pair in PAIRS if (pair.model, pair.task) == (model, ask)):
            assert all(hasattr(ConfiguredAlgorithm.parse(pair.algorithm).config, name) for name in shared.values())
    assert pairs.peer_settings(["ItemKNN.feedback=explicit"]) == {"ItemKNN": {"feedback": "explicit"}}
    for wrong in ("ALS.alpha", "alpha=3", "Other.alpha=3"):
        with pytest.raises(UsageError, match="has the form ALS"):
            pairs.peer_settings([wrong])


def _fold() -> Fold:
    rows = np.arange(6)
    return Fold(
        users=rows % 3,
        items=rows % 2,
        ratings=rows.astype(np.float64),
        test_users=rows[:1],
        test_items=rows[2:3],
        listed_users=rows[:2],
        n_users=3,
        n_items=3,
        rating_min=0.0,
        rating_max=5.0,
        threads=1,
        length=2,
    )


def test_a_fold_survives_its_file(tmp_path: Path) -> None:
    """With the same types."""
    fold = _fold()
    fold.save(str(tmp_path / "fold.npz"))
    read = vars(Fold.load(str(tmp_path / "fold.npz")))
    assert list(read) == list(vars(fold))
    for name, value in vars(fold).items():
        assert type(read[name]) is type(value)
        assert np.array_equal(read[name], value)


def test_a_missing_library_or_interpreter_is_one_sentence(tmp_path: Path) -> None:
    """It names what is missing, or what to do."""
    with (
        pytest.raises(RunError, match=r"surprise failed: ModuleNotFoundError: No module named '(pandas|surprise)'"),
        peer.started(Path(sys.executable), "surprise", _fold()),
    ):
        pass
    with (
        pytest.raises(RunError, match=r"cannot be started \(No such file or directory\); `make peers` makes one"),
        peer.started(tmp_path / "python", "surprise", _fold()),
    ):
        pass


@pytest.mark.skipif(not PEERS_PYTHON.exists(), reason="`make peers` has not been run")
def test_peers_agree_where_definitions_are_equal() -> None:
    """Baselines are the same alternating sums on both sides; rankings are better than random ones."""
    names, libraries = ("baseline", "item_knn"), ("surprise", "implicit")
    contest, said = _run(_plan(*map(registry.ConfiguredAlgorithm.parse, names), libraries=libraries))
    assert [line.split(": ")[1] for line in said[:4]] == [
        "recollect baseline",
        "surprise BaselineOnly",
        "recollect item_knn",
        "implicit Cosine",
    ]
    own, peer_side = contest.own["baseline", "predict"], contest.by_pair[PAIRS[7]]
    assert own.measures["rmse"] == pytest.approx(peer_side.measures["rmse"], abs=1e-4)
    cosine = contest.by_pair[Pair("item_knn", "implicit", "Cosine", "rank")]
    # A list of 20 drawn from the 60 items would hold a third of what there is to find.
    assert all(recall > 0.4 for recall in cosine.measures["recall@20"])
    assert [one.version for one in contest.peers["surprise"]] == ["1.1.5", "1.1.5"]
    assert all(seconds.fit_s > 0 and seconds.answer_s > 0 for seconds in cosine.seconds)


def test_the_command_runs_without_peers(capsys: pytest.CaptureFixture[str]) -> None:
    """No bound applies then."""
    argv = ["models", "--data", DATA, "--algorithms", "popularity", "--folds", "2", "--peers", "none", "--check"]
    assert cli.main([*argv, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["peers"] == {}
    assert printed["results"][0]["algorithm"] == "popularity"
    assert cli.main(argv) == 0
    assert "recall@20" in capsys.readouterr().out


def test_scale_is_measured_in_processes_of_their_own() -> None:
    """A 16th, a quarter and the whole; memory is that of one size only."""
    said: list[str] = []
    plan = training_scale.ScalePlan(algorithms=("svd",), n_factors=8, n_epochs=3, threads=1)
    figures = json.loads(json.dumps(training_scale.run(plan, DemoSize(1600, 320, 32_000), said.append)))
    assert [(one["n_users"], one["n_items"], one["n_ratings"]) for one in figures] == [
        (100, 20, 2000),
        (400, 80, 8000),
        (1600, 320, 32_000),
    ]
    assert figures[0]["growth"] == 1
    for one in figures:
        assert one["data_bytes"] == 20 * one["n_ratings"]
        assert one["data_bytes"] < one["before_bytes"] <= one["peak_bytes"]
        assert one["epoch_cpu_s"] > 0
        assert one["epoch_s"] < one["fit_s"]
    assert len(said) == len(list(training_scale.rows(figures))) == 3
    assert {len(row) for row in training_scale.rows(figures)} == {len(training_scale.HEADINGS)}


def test_the_growth_of_the_largest_size_counts() -> None:
    """For each algorithm."""
    figures = [
        {"algorithm": "svd", "growth": 1.0},
        {"algorithm": "svd", "growth": 1.6},
        {"algorithm": "ials", "growth": 1.0},
        {"algorithm": "ials", "growth": 1.5},
    ]
    assert list(training_scale.exceeding(figures, 1.5)) == ["a rating costs svd 1.60 times as much"]
    assert list(training_scale.exceeding(figures, 1.6)) == []


def test_an_impossible_scale_is_refused_before_any_training() -> None:
    """An algorithm without factors, and more ratings than pairs in the smallest size."""
    with pytest.raises(UsageError, match="n_factors"):
        list(training_scale.ScalePlan(algorithms=("popularity",), n_factors=8, n_epochs=1, threads=0).tasks(DemoSize()))
    with pytest.raises(DataError, match="more ratings than"):
        list(
            training_scale.ScalePlan(algorithms=("svd",), n_factors=8, n_epochs=1, threads=0).tasks(
                DemoSize(160, 16, 2000)
            )
        )
