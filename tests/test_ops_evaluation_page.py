from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from ops import evaluation_page
from service.errors import UsageError
from service.training.algorithms.registry import parse_list
from service.training.data import datasets
from service.training.evaluation import cuts
from service.training.evaluation.comparison import compare
from service.training.evaluation.protocol import Protocol
from tests.standalone import standing_alone


@pytest.fixture(scope="module")
def comparison() -> dict[str, Any]:
    """A real one: two models that predict ratings, one of them twice, and one that ranks only."""
    protocol = Protocol(folds=2, ks=(5, 10), n_negatives=10)
    data = datasets.read("demo:60x40x900")
    candidates = list(parse_list(["svd", "svd", "popularity"]))
    return compare(cuts.cut(data, protocol), candidates, protocol)


def test_the_page_tells_the_whole_comparison(comparison: dict[str, Any]) -> None:
    """Every mean in a table, every interval, every setting and note, without a network or a script."""
    structure = standing_alone(evaluation_page.render(comparison))
    for result in comparison["results"]:
        assert result["label"] in structure.text
        for measure in result["measures"].values():
            assert measure["mean"] is None or f"{measure['mean']:.4f}" in structure.text
    for note in comparison["notes"]:
        assert note in structure.text
    for pair in comparison["comparisons"]:
        assert f"{pair['difference']:+.4f}" in structure.text
    titles = "\n".join(structure.titles)
    for result in comparison["results"]:
        for name, measure in result["measures"].items():
            assert measure["mean"] is None or f"{result['label']}: {name} {measure['mean']:.4f}" in titles
    assert "svd (2), light users: rmse 0." in titles or "svd (2), light users: rmse 1." in titles
    assert "popularity: a list by look-up" in titles
    for heading in (
        "Measures",
        "Time and space",
        "By group",
        "Every two models",
        "Leakage and cold starts",
        "Settings",
    ):
        assert heading in structure.text


def test_what_is_unknown_is_left_out(comparison: dict[str, Any]) -> None:
    """A measure without interval or mean, a model without groups or look-ups: a page all the same."""
    bare = copy.deepcopy(comparison)
    bare["comparisons"], bare["notes"] = [], []
    for result in bare["results"]:
        result |= {"groups": None, "list_us": None, "pairwise_list_us": None}
        for measure in result["measures"].values():
            measure["ci95"] = None
    bare["results"][0]["measures"]["rmse"]["mean"] = None
    structure = standing_alone(evaluation_page.render(bare))
    assert "By group" not in structure.text
    assert "Every two models" not in structure.text
    assert "What a look-up saves" not in structure.text
    assert "±" not in structure.text


def test_ranking_alone_has_a_page(comparison: dict[str, Any]) -> None:
    """No model predicts ratings, so none has an error."""
    alone = copy.deepcopy(comparison)
    alone["results"] = [result for result in alone["results"] if result["kind"] == "ranking"]
    alone["comparisons"] = []
    structure = standing_alone(evaluation_page.render(alone))
    assert "The lowest rmse" not in structure.text
    assert "The highest ndcg@5" in structure.text


def test_what_came_from_data_is_no_markup(comparison: dict[str, Any]) -> None:
    """A path, a note and a setting may hold anything."""
    nasty = "<script>alert('x')</script>"
    told = copy.deepcopy(comparison)
    told["data"]["source"] = nasty
    told["notes"] = [nasty]
    told["results"][0]["settings"] = {nasty: nasty}
    told["results"][0]["label"] = nasty
    structure = standing_alone(evaluation_page.render(told))
    assert structure.text.count(nasty) >= 4


def test_a_page_that_cannot_be_written_is_refused(comparison: dict[str, Any], tmp_path: Path) -> None:
    """In one sentence."""
    evaluation_page.write(tmp_path / "page.html", comparison)
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(UsageError, match="cannot be written"):
        evaluation_page.write(tmp_path / "nowhere" / "page.html", comparison)
