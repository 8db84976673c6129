import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import RunError, UsageError
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.evaluation import measurement, split_dataset
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.interactions import Interactions
from service.training.search import search_space, shared_dataset
from service.training.search.search_run import SearchProgress, search
from service.training.search.search_spec import SearchOptions, SearchSpec
from service.training.search.workers import FoldFailed, FoldMeasured, FoldTask, Workers

FIXED = ("n_epochs=2", "n_factors=4")


@pytest.fixture(scope="module")
def data() -> Interactions:
    return datasets.read("demo:60x40x900")


def spec(*spaces: str, measure: str = "rmse", protocol: EvaluationProtocol | None = None) -> SearchSpec:
    parsed = search_space.parse("svd", spaces or ("lr_all=0.001..0.1:log",), FIXED)
    return SearchSpec("svd", FIXED, parsed, measure, protocol or EvaluationProtocol(folds=3, seed=7))


def without_clock(found: dict[str, Any]) -> list[Any]:
    """The parts of trials that do not depend on the clock."""
    return [(trial["settings"], trial["folds"], trial["state"], trial["why"]) for trial in found["trials"]]


def test_a_search_finds_better_hyperparameters(data: Interactions) -> None:
    """The same trials each time, with the measure that evaluating the winner on its own gives."""
    wanted = spec()
    updates: list[SearchProgress] = []
    found = search(data, wanted, SearchOptions(n_trials=12), on_progress=updates.append)
    best, defaults = found["best"], found["defaults"]
    assert len(found["trials"]) == 12
    assert best["mean"] == min(trial["mean"] for trial in found["trials"] if trial["state"] == "complete")
    assert best["trial"] == found["ranked"][0]
    assert best["mean"] < defaults["mean"]
    assert best["against_defaults"]["difference"] == pytest.approx(best["mean"] - defaults["mean"])
    assert {"complete", "pruned"} == {trial["state"] for trial in found["trials"]}
    assert all(len(trial["folds"]) < 3 for trial in found["trials"] if trial["state"] == "pruned")
    assert (updates[0].n_ended, updates[-1].n_ended, updates[-1].n_trials) == (0, 12, 12)
    assert [update.ended.number for update in updates if update.ended is not None] == list(range(12))

    winner, seeds = ConfiguredAlgorithm.parse("svd", best["assignments"]), wanted.protocol.seeds().fits
    for fold, split in enumerate(split_dataset.split(data, wanted.protocol).splits()):
        rng = np.random.default_rng(seeds[fold])
        measured = measurement.fit_and_measure(winner, split.train, split.test, rng, measures=["rmse"])
        assert measured["rmse"] == best["folds"][fold]

    assert without_clock(search(data, wanted, SearchOptions(n_trials=12))) == without_clock(found)


def test_a_search_continues_its_study(data: Interactions, tmp_path: Path) -> None:
    """The number of trials is that of the whole study; a finished study only gives its result again."""
    study = tmp_path / "study"
    whole = search(data, spec(), SearchOptions(n_trials=9))
    search(data, spec(), SearchOptions(n_trials=4, study=study))
    resumed = search(data, spec(), SearchOptions(n_trials=9, study=study))
    assert without_clock(resumed) == without_clock(whole)
    assert resumed["defaults"]["folds"] == whole["defaults"]["folds"]
    before = study.read_bytes()
    again = search(data, spec(), SearchOptions(n_trials=9, study=study))
    assert without_clock(again) == without_clock(whole)
    assert study.read_bytes() == before
    with pytest.raises(UsageError, match="its seed is 7, not 8"):
        search(data, spec(protocol=EvaluationProtocol(folds=3, seed=8)), SearchOptions(n_trials=9, study=study))


def test_failing_trials_do_not_end_the_search(
    data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept with their reason, and no temporary file is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = search(data, spec("lr_all=0.01,9.5"), SearchOptions(method="grid"))
    states = {trial["settings"]["lr_all"]: (trial["state"], trial["why"]) for trial in found["trials"]}
    assert states[0.01] == ("complete", None)
    assert states[9.5][0] == "failed"
    assert states[9.5][1].startswith("svd diverged in epoch 1")
    assert found["best"]["settings"] == {"lr_all": 0.01}
    with pytest.raises(
        RunError, match="No trial came to an end with a value; the first of 1 that failed: svd diverged"
    ):
        search(data, spec("lr_all=9.5"), SearchOptions(method="grid"))
    assert list(tmp_path.iterdir()) == []


def test_several_workers_measure_the_same(data: Interactions) -> None:
    """A grid has the same points with the same values, and each is measured once."""
    wanted = spec("lr_all=0.01,0.02", "reg_all=0.02,0.1")
    one = search(data, wanted, SearchOptions(method="grid", prune=False))
    two = search(data, wanted, SearchOptions(method="grid", prune=False, n_workers=2, n_threads=1))
    by_settings = [
        sorted((str(trial["settings"]), trial["folds"]) for trial in found["trials"]) for found in (one, two)
    ]
    assert by_settings[0] == by_settings[1]
    assert len({settings for settings, _ in by_settings[0]}) == 4


def test_repeated_values_are_not_fitted_again(data: Interactions) -> None:
    """A trial with values of an earlier one copies its result."""
    found = search(data, spec("biased=true,false"), SearchOptions(n_trials=6, prune=False))
    first: dict[str, dict[str, Any]] = {}
    for one in found["trials"]:
        known = first.setdefault(str(one["settings"]), one)
        assert one["folds"] == known["folds"]
        assert (one["seconds"] == 0) == (one is not known)


def test_a_ranking_measure_is_maximised(data: Interactions) -> None:
    """The largest value is the best; a split by time is a single one."""
    wanted = spec("reg_all=0.02,1.0", measure="ndcg@10", protocol=EvaluationProtocol(split="time"))
    found = search(data, wanted, SearchOptions(method="grid"))
    assert found["protocol"]["direction"] == "maximize"
    assert found["best"]["mean"] == max(trial["mean"] for trial in found["trials"])
    assert [len(trial["folds"]) for trial in found["trials"]] == [1, 1]
    assert found["best"]["ci95"] is None


def test_no_trial_begins_after_the_time_is_up(data: Interactions) -> None:
    """Without a complete trial that is an error."""
    with pytest.raises(RunError, match="No trial came to an end with a value"):
        search(data, spec(), SearchOptions(timeout_s=0.0))


@pytest.mark.parametrize(
    ("measure", "protocol", "sentence"),
    [
        ("magic", EvaluationProtocol(folds=3), "no measure 'magic'"),
        ("rmse", EvaluationProtocol(split="canonical"), "cannot use the split 'canonical'"),
        ("rmse", EvaluationProtocol(folds=901), "cannot be split into 901 folds"),
    ],
)
def test_undefined_searches_are_refused(
    data: Interactions, measure: str, protocol: EvaluationProtocol, sentence: str
) -> None:
    """Before any process starts."""
    with pytest.raises(UsageError, match=sentence):
        search(data, spec(measure=measure, protocol=protocol), SearchOptions())


def test_a_worker_that_dies_is_replaced(data: Interactions, tmp_path: Path) -> None:
    """Its task fails with the reason, and another process does the next one."""
    shared_dataset.write(tmp_path, data, list(split_dataset.split_positions(data, EvaluationProtocol(folds=3))))
    task = FoldTask("svd", FIXED, "rmse", EvaluationProtocol(folds=3), 0, np.random.SeedSequence(1))
    with Workers(tmp_path, 1, 1) as workers:
        workers.start(0, task)
        assert [type(result) for _, result in workers.results()] == [FoldMeasured]
        ((process, _),) = workers._processes.values()
        workers.start(0, task)
        process.kill()
        results = list(workers.results())
        # It may have been quicker than the kill; then it dies with nothing to do.
        assert results[0][1] == FoldFailed("The process was killed, most likely for want of memory.") or isinstance(
            results[0][1], FoldMeasured
        )
        process.join()
        workers.start(0, task)
        assert [type(result) for _, result in workers.results()] == [FoldMeasured]
