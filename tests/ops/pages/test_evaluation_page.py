import copy
from pathlib import Path
from typing import Any

import pytest

from ops.pages import evaluation_page, page
from service.errors import UsageError
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.evaluation import split_dataset
from service.training.evaluation.comparison import compare
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from tests.support.standalone_page import assert_standalone


@pytest.fixture(scope="module")
def comparison() -> dict[str, Any]:
    """Of one model that predicts ratings, twice, and one that ranks only."""
    protocol = EvaluationProtocol(folds=2, ks=(5, 10), n_negatives=10)
    data = datasets.read("demo:60x40x900")
    candidates = [ConfiguredAlgorithm.parse(name) for name in ("svd", "svd", "popularity")]
    return compare(split_dataset.split(data, protocol), candidates, protocol)


def test_the_page_has_the_whole_comparison(comparison: dict[str, Any]) -> None:
    """Every mean in a table, every interval, every setting and note, without a network or a script."""
    structure = assert_standalone(evaluation_page.render(comparison))
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
            if name == "mrr":  # shown under the name with the length of its lists
                continue
            assert measure["mean"] is None or f"{result['label']}: {name} {measure['mean']:.4f}" in titles
    assert "svd (2), light users: rmse 0." in titles or "svd (2), light users: rmse 1." in titles
    assert "popularity: a list by look-up" in titles
    for heading in (
        "Measures",
        "Time and space",
        "By group",
        "Pairwise comparisons",
        "Leakage and cold starts",
        "Settings",
    ):
        assert heading in structure.text


def test_unknown_values_are_left_out(comparison: dict[str, Any]) -> None:
    """A measure without interval or mean, a model without groups or look-ups: a page all the same."""
    bare = copy.deepcopy(comparison)
    bare["comparisons"], bare["notes"] = [], []
    for result in bare["results"]:
        result |= {"groups": None, "list_us": None, "pairwise_list_us": None}
        for measure in result["measures"].values():
            measure["ci95"] = None
    bare["results"][0]["measures"]["rmse"]["mean"] = None
    structure = assert_standalone(evaluation_page.render(bare))
    assert "By group" not in structure.text
    assert "Pairwise comparisons" not in structure.text
    assert "Look-up against prediction pair by pair" not in structure.text
    assert "±" not in structure.text


def test_a_comparison_of_rankers_has_no_errors(comparison: dict[str, Any]) -> None:
    """No model predicts ratings."""
    rankers = copy.deepcopy(comparison)
    rankers["results"] = [result for result in rankers["results"] if result["kind"] == "ranking"]
    rankers["comparisons"] = []
    structure = assert_standalone(evaluation_page.render(rankers))
    assert "The lowest rmse" not in structure.text
    assert "The highest ndcg@5" in structure.text


def test_every_plot_and_measure_shows_the_better_direction(comparison: dict[str, Any]) -> None:
    """Every list measure has the length of its lists; the title has the data set's name without its path."""
    changed = copy.deepcopy(comparison)
    changed["data"]["source"] = "/home/ann/data/ml-1m"
    text = evaluation_page.render(changed)
    plots = text.split('<svg class="plot"')[1:]
    assert plots
    assert all("better" in plot.partition("</svg>")[0] for plot in plots)
    assert ">rmse ↓</th>" in text
    assert ">mrr@10 ↑</th>" in text
    assert "mrr ↑" not in text
    structure = assert_standalone(text)
    assert "Comparison of 3 models on ml-1m" in structure.text
    assert "/home/ann" not in structure.text


def test_a_failed_model_is_listed_with_the_reason(comparison: dict[str, Any]) -> None:
    """It is in no table and no plot; a page in which all failed has neither."""
    changed = copy.deepcopy(comparison)
    nothing = dict.fromkeys(("fit_s", "predict_s", "rank_s", "list_us", "pairwise_list_us"))
    changed["results"][0] |= nothing | {"failed": "it diverged", "measures": {}, "groups": {"users": {}, "items": {}}}
    structure = assert_standalone(evaluation_page.render(changed))
    assert "it diverged" in structure.text
    assert "Comparison of 3 models" in structure.text
    changed["results"] = [changed["results"][0]] * 3
    assert "it diverged" in assert_standalone(evaluation_page.render(changed)).text


def test_texts_from_data_are_escaped(comparison: dict[str, Any]) -> None:
    """Paths, notes, settings and labels."""
    nasty = "<script>alert('x')<script>"
    changed = copy.deepcopy(comparison)
    changed["data"]["source"] = nasty
    changed["notes"] = [nasty]
    changed["results"][0]["settings"] = {nasty: nasty}
    changed["results"][0]["label"] = nasty
    structure = assert_standalone(evaluation_page.render(changed))
    assert structure.text.count(nasty) >= 4


def test_a_page_that_cannot_be_written_is_refused(comparison: dict[str, Any], tmp_path: Path) -> None:
    """In one sentence."""
    text = evaluation_page.render(comparison)
    page.write(tmp_path / "page.html", text)
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(UsageError, match="cannot be written"):
        page.write(tmp_path / "nowhere" / "page.html", text)
