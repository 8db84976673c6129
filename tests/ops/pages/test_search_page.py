import copy
from typing import Any

import pytest

from ops.pages import search_page
from tests.support.standalone_page import assert_standalone


def trial(number: int, state: str, folds: list[float], why: str | None = None, **settings: Any) -> dict[str, Any]:
    mean = sum(folds) / len(folds) if folds else None
    ci95 = [mean - 0.01, mean + 0.01] if mean is not None and len(folds) > 1 else None
    return {
        "trial": number,
        "state": state,
        "settings": settings,
        "mean": mean,
        "ci95": ci95,
        "folds": folds,
        "seconds": 1.25,
        "why": why,
    }


@pytest.fixture
def found() -> dict[str, Any]:
    """The result of a search of hyperparameters of all kinds."""
    trials = [
        trial(0, "complete", [0.91, 0.93], rate=0.01, width=8, mode="cosine", biased=True),
        trial(1, "failed", [], "it <diverged> & ended", rate=0.9, width=8, mode="msd", biased=False),
        trial(2, "pruned", [2.5], rate=0.5, width=64, mode="msd", biased=False),
        trial(3, "complete", [0.87, 0.89], rate=0.02, width=64, mode="cosine", biased=True),
        trial(4, "running", [0.9], rate=0.03, width=64, mode="cosine", biased=True),
    ]
    against = {"difference": -0.04, "ci95": [-0.05, -0.03]}
    return {
        "data": {"source": "<data> & more", "n_ratings": 900, "n_users": 60, "n_items": 40},
        "algorithm": "svd",
        "protocol": {
            "measure": "rmse",
            "direction": "minimize",
            "split": "folds",
            "split_in_words": "2 random folds over ratings",
            "folds": 2,
            "seed": 0,
            "method": "tpe",
        },
        "space": {
            "rate": {"low": 0.001, "high": 1.0, "log": True},
            "width": {"values": [8, 64]},
            "mode": {"values": ["cosine", "msd"]},
            "biased": {"values": [True, False]},
        },
        "fixed": {"n_epochs": 2},
        "defaults": trial(-1, "complete", [0.92, 0.94], rate=0.005, width=100, mode="msd", biased=True),
        "best": {**trials[3], "assignments": ["rate=0.02", "width=64"], "against_defaults": against},
        "importance": {"rate": 0.75, "width": 0.25, "mode": 0.0, "biased": 0.0},
        "ranked": [3, 0],
        "trials": trials,
        "seconds": 12.0,
        "is_interrupted": False,
    }


def test_the_page_has_the_whole_search(found: dict[str, Any]) -> None:
    """The best first, each trial as a mark in order and against each hyperparameter, and the failures."""
    structure = assert_standalone(search_page.render(found))
    text, titles = structure.text, structure.titles
    assert "The best rmse is 0.8800, of trial 3; the default settings reach 0.9300." in text
    assert "-0.0400 (95 % interval -0.0500 to -0.0300)" in text
    assert text.index("0.8800 ±0.0100") < text.index("0.9200 ±0.0100") < text.index("0.9300 ±0.0100")
    assert "Trial 1: it <diverged> & ended" in text
    assert "Search for the settings of svd on <data> & more" in text
    best = "trial 3, complete: rmse 0.8800; rate 0.02, width 64, mode cosine, biased true"
    assert titles.count(best) == 1 + len(found["space"])
    assert sum(title.startswith("trial 2, pruned: rmse 2.5000") for title in titles) == 1 + len(found["space"])
    assert not any(title.startswith(("trial 1,", "trial 4,")) for title in titles)
    assert "rate: 75%" in titles


def test_a_search_of_one_trial_has_a_page(found: dict[str, Any]) -> None:
    """Without importance, figures of the defaults, or an interval."""
    little = copy.deepcopy(found)
    only = trial(0, "complete", [0.9], rate=0.01, width=8, mode="cosine", biased=True)
    little |= {"trials": [only], "ranked": [0], "importance": {}, "is_interrupted": True}
    little["defaults"] = {**little["defaults"], "mean": None, "ci95": None, "why": "it diverged"}
    little["best"] = {**only, "assignments": [], "against_defaults": None}
    structure = assert_standalone(search_page.render(little))
    assert "The best rmse is 0.9000, of trial 0." in structure.text
    assert "until it was interrupted" in structure.text
    assert "Importance" not in structure.text
    assert "defaults" not in structure.text


def test_a_measure_may_be_maximised(found: dict[str, Any]) -> None:
    """The best is the highest."""
    ranked = copy.deepcopy(found)
    ranked["protocol"] |= {"measure": "ndcg@10", "direction": "maximize"}
    ranked["ranked"] = [0, 3]
    ranked["best"] = {**ranked["trials"][0], "assignments": [], "against_defaults": None}
    structure = assert_standalone(search_page.render(ranked))
    assert "The best ndcg@10 is 0.9200, of trial 0." in structure.text
