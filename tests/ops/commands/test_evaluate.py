import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from ops.commands.evaluate import command
from service.errors import DataError, UsageError
from service.training.evaluation.evaluation_protocol import SPLIT_DESCRIPTIONS
from service.training.evaluation.measures.per_user import all_measures
from service.training.selection.candidates import CANDIDATES

DEMO = "demo:60x40x900"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECOLLECT_HOME", str(tmp_path / "var"))
    return tmp_path / "var"


def evaluate(*, data: str = DEMO, algorithms: str = "svd", **options: Any) -> int:
    """Call the command as its parsed options do."""
    return command(data=[data], algorithms=algorithms, **options)


def test_json_is_one_object(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard output, with nothing before or after; the run publishes nothing."""
    settings = ["svd.n_factors=3", "svd.n_epochs=2"]
    assert evaluate(settings=settings, folds=3, seed=5, as_json=True) == 0
    out, err = capsys.readouterr()
    comparison = json.loads(out)
    assert [result["algorithm"] for result in comparison["results"]] == ["svd", "popularity"]
    assert (comparison["results"][0]["settings"]["n_factors"], comparison["protocol"]["folds"]) == (3, 3)
    assert "evaluate: 100 %" in err
    assert not home.exists()


def test_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """One for the data, one per algorithm, one per compared measure, and the notes; without escape sequences."""
    assert evaluate(algorithms="svd,svd", folds=3) == 0
    headline, first, second, baseline, *rest = capsys.readouterr().out.splitlines()
    assert headline == f"{DEMO}: 900 ratings by 60 users of 40 items; 3 random folds, seed 0"
    assert re.match(r"algorithm svd  rmse \d\.\d{4} ±\d\.\d{4}  mae \d\.\d{4} ±\d\.\d{4}  ndcg@10 \d", first)
    assert second.startswith("algorithm svd (2)  rmse")
    assert baseline.startswith("algorithm popularity  rmse -  mae -  ndcg@10 ")
    assert rest[0] == "rmse: svd is best, not significantly better than svd (2) (5 %, Holm)"
    assert [line.split(":")[0] for line in rest] == ["rmse", "mae", "ndcg@10", "recall@10", "note"]


@pytest.mark.parametrize(
    ("ks", "n_negatives", "names"),
    [
        ("20,10", None, ["rmse", "mae", "ndcg@10", "recall@10", "coverage@10"]),
        ("10", 100, ["rmse", "ndcg@10", "recall@10", "sampled100_hit_rate@10"]),
    ],
)
def test_a_table_on_a_terminal(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ks: str,
    n_negatives: int | None,
    names: list[str],
) -> None:
    """A heading over each column, a row on one line, within 120 columns."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert evaluate(folds=2, k=ks, sampled=n_negatives) == 0
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in capsys.readouterr().out.splitlines()]
    heading = next(i for i, line in enumerate(lines) if "algorithm" in line)
    assert lines[heading].split() == ["algorithm", *names, "fit_s", "predict_s", "model_mib", "peak_mib"]
    assert [line.split()[0] for line in lines[heading + 1 : heading + 3]] == ["svd", "popularity"]


@pytest.mark.parametrize(
    ("algorithms", "settings", "labels", "factors"),
    [
        (["svd", "svd"], ["svd.n_factors=3", "svd.n_factors=5"], ["svd n_factors=3", "svd n_factors=5"], [3, 5]),
        (["svd", "svd"], ["svd.n_factors=3"], ["svd", "svd (2)"], [3, 3]),
        (["a=svd", "svd"], ["a.n_factors=3", "svd.n_factors=5"], ["a", "svd"], [3, 5]),
        (["a=svd", "b=svd"], ["a.n_factors=3", "b.n_factors=4"], ["a", "b"], [3, 4]),
    ],
)
def test_an_algorithm_may_be_compared_with_itself(
    capsys: pytest.CaptureFixture[str],
    algorithms: list[str],
    settings: list[str],
    labels: list[str],
    factors: list[int],
) -> None:
    """By labels, or with one value for each in their order; default labels name the difference."""
    settings = [*settings, *(f"{name.partition('=')[0]}.n_epochs=2" for name in dict.fromkeys(algorithms))]
    assert evaluate(algorithms=",".join(algorithms), settings=settings, folds=2, as_json=True) == 0
    results = json.loads(capsys.readouterr().out)["results"][:2]
    assert [result["label"] for result in results] == labels
    assert [result["settings"]["n_factors"] for result in results] == factors


def test_the_status_is_1_if_every_algorithm_failed(capsys: pytest.CaptureFixture[str]) -> None:
    """With one that did not fail it is 0. The table has both."""
    wild = ["svd.lr_all=9"]
    assert evaluate(settings=wild, folds=2) == 1
    out = capsys.readouterr().out
    assert "algorithm svd  ndcg@10 -" in out
    assert "note: svd failed and has no measures: svd diverged" in out
    assert evaluate(algorithms="svd,baseline", settings=wild, folds=2) == 0


def test_a_declared_scale_and_the_candidates_of_auto(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ratings outside are clipped and named; without a name the candidates are judged, with ratings or without."""
    path = tmp_path / "t.csv"
    path.write_text("".join(f"u{n % 20},i{n * 7 % 30},{n % 5 + 1}\n" for n in range(200)) + "eve,i1,99\n")
    assert evaluate(data=str(path), algorithms="", scale="1:5", folds=2, as_json=True) == 0
    out, err = capsys.readouterr()
    comparison = json.loads(out)
    assert comparison["protocol"]["clipped_to"] == [1.0, 5.0]
    judged = [result["algorithm"] for result in comparison["results"]]
    assert judged == [candidate.name for candidate in CANDIDATES]
    assert "1 rating lies outside of the scale 1 to 5, declared" in err
    path.write_text("".join(f"u{n % 20},i{n * 7 % 30}\n" for n in range(200)))
    assert evaluate(data=str(path), algorithms="", folds=2, as_json=True) == 0
    assert [result["algorithm"] for result in json.loads(capsys.readouterr().out)["results"]] == judged


def test_a_test_set_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained on one file, judged by another; bad rows of both are reported."""
    rows = [f"u{user},i{item},{1 + (user + item) % 5}" for user in range(8) for item in range(6)]
    (tmp_path / "train.csv").write_text("user,item,rating\n" + "\n".join(rows[::2]) + "\nbad,row,x\n")
    (tmp_path / "test.csv").write_text("user,item,rating\n" + "\n".join(rows[1::2]) + "\nworse,row,x\n")
    train, test = str(tmp_path / "train.csv"), str(tmp_path / "test.csv")
    assert evaluate(data=train, test=test) == 0
    out, err = capsys.readouterr()
    assert "24 ratings by 8 users of 6 items; a given test set, seed 0" in out
    assert "train.csv" in err
    assert "test.csv" in err


def test_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is written in addition to the table."""
    page = tmp_path / "page.html"
    assert evaluate(folds=2, report=page) == 0
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
    assert capsys.readouterr().out.startswith(DEMO)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"algorithms": "svd,magic"}, "no algorithm 'magic'"),
        ({"settings": ["n_factors=3"]}, "as algorithm.name=value, not as 'n_factors=3'"),
        ({"settings": ["baseline.n_epochs=3"]}, "'baseline', which is not among the algorithms"),
        ({"settings": ["svd.magic=3"]}, "no setting 'magic'"),
        ({"algorithms": "a=svd,a=nmf"}, "'a' names two"),
        ({"algorithms": "svd=nmf,svd"}, "'svd' names two"),
        ({"settings": ["svd.n_factors=3", "svd.n_factors=4"]}, "2 values for 1 entries of svd"),
        ({"split": "magic"}, "no split 'magic'"),
        ({"split": "time", "folds": 3}, "number of folds is given with the split 'folds', not with 'time'"),
        ({"split": "leave-one-out", "test_share": 0.2}, "splits time and time-per-user, not 'leave-one-out'"),
        ({"split": "given"}, "A test set is given with the split 'given'"),
        ({"split": "folds", "test": DEMO}, "A test set is given with the split 'given'"),
        ({"k": "10,twenty"}, "whole numbers separated by commas, not '10,twenty'"),
        ({"k": "0"}, "from 1 to 500"),
    ],
)
def test_refusals(options: dict[str, Any], sentence: str) -> None:
    """Each in one sentence, before the data is read."""
    with pytest.raises(UsageError, match=sentence):
        evaluate(**({"data": "/nowhere"} | options))


def test_the_documents_name_every_split_and_measure() -> None:
    """And no other split."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z-]+)`(?: \(default\))? \|", text, flags=re.MULTILINE) == list(SPLIT_DESCRIPTIONS)
    assert [name for name in all_measures((1,)) if name.k and f"`{name.family}@k`" not in text] == []


def test_data_that_is_refused() -> None:
    """It is missing, or too small."""
    with pytest.raises(DataError):
        evaluate(data="/nowhere")
    with pytest.raises(UsageError, match="1 ratings cannot be split into 5 folds"):
        evaluate(data="demo:1x1x1")
