import copy
from pathlib import Path
from typing import Any

import pytest

from ops.pages import evaluation_page
from service.errors import UsageError
from service.training.algorithms.registry import parse_list
from service.training.data import datasets
from service.training.evaluation import split_dataset
from service.training.evaluation.comparison import compare
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from tests.support.tidy_process import standing_alone


@pytest.fixture(scope="module")
def comparison() -> dict[str, Any]:
    """A real one: two models that predict ratings, one of them twice, and one that ranks only."""
    protocol = EvaluationProtocol(folds=2, ks=(5, 10), n_negatives=10)
    data = datasets.read("demo:60x40x900")
    candidates = list(parse_list(["svd", "svd", "popularity"]))
    return compare(split_dataset.split(data, protocol), candidates, protocol)


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
            if name == "mrr":  # it is there under the name that says the length of its lists
                continue
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


def test_every_plot_and_measure_says_which_way_is_better(comparison: dict[str, Any]) -> None:
    """Or that neither end is; no list measure lacks the length of its lists; the title is the data set's."""
    told = copy.deepcopy(comparison)
    told["data"]["source"] = "/home/ann/data/ml-1m"
    text = evaluation_page.render(told)
    plots = text.split('<svg class="plot"')[1:]
    assert plots
    assert all("better" in plot.partition("</svg>")[0] for plot in plots)
    assert ">rmse ↓</th>" in text
    assert ">mrr@10 ↑</th>" in text
    assert "mrr ↑" not in text
    structure = standing_alone(text)
    assert "Comparison of 3 models on ml-1m" in structure.text
    assert "/home/ann" not in structure.text


def test_a_model_that_failed_is_named(comparison: dict[str, Any]) -> None:
    """With the reason, and in no table or plot of figures; nothing is left where all failed."""
    told = copy.deepcopy(comparison)
    nothing = dict.fromkeys(("fit_s", "predict_s", "rank_s", "list_us", "pairwise_list_us"))
    told["results"][0] |= nothing | {"failed": "it diverged", "measures": {}, "groups": {"users": {}, "items": {}}}
    structure = standing_alone(evaluation_page.render(told))
    assert "it diverged" in structure.text
    assert "Comparison of 3 models" in structure.text
    told["results"] = [told["results"][0]] * 3
    assert "it diverged" in standing_alone(evaluation_page.render(told)).text


def test_what_came_from_data_is_no_markup(comparison: dict[str, Any]) -> None:
    """A path, a note and a setting may hold anything."""
    nasty = "<script>alert('x')<script>"
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
