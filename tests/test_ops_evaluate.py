from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from ops.evaluate import evaluate
from service.config import Config
from service.errors import DataError, UsageError

DEMO = "demo:60x40x900"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "var")


def test_json_is_one_object(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard output, with nothing before or after; the run publishes nothing."""
    assert evaluate(config, data=DEMO, algorithms=["svd"], folds=3, seed=5, as_json=True) == 0
    out, err = capsys.readouterr()
    comparison = json.loads(out)
    assert [result["algorithm"] for result in comparison["results"]] == ["svd"]
    assert set(comparison["results"][0]["measures"]) == {"rmse", "mae"}
    assert comparison["protocol"]["folds"] == 3
    assert "evaluate: 100 %" in err
    assert not config.home.exists()


def test_elsewhere_than_on_a_terminal_there_are_plain_lines(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """One for the data and one per algorithm, without escape sequences."""
    assert evaluate(config, data=DEMO, algorithms=["svd"], folds=3) == 0
    headline, row = capsys.readouterr().out.splitlines()
    assert headline == f"{DEMO}: 900 ratings by 60 users of 40 items; 3 random folds, seed 0"
    assert re.match(r"algorithm svd  rmse \d\.\d{4} ±\d\.\d{4}  mae \d\.\d{4} ±\d\.\d{4}  fit_s \d", row)


def test_on_a_terminal_there_is_a_table(
    config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heading over each column, within 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert evaluate(config, data=DEMO, algorithms=["svd", "svd"], folds=2) == 0
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in capsys.readouterr().out.splitlines()]
    heading = next(i for i, line in enumerate(lines) if "algorithm" in line)
    names = ["algorithm", "rmse", "mae", "fit_s", "predict_s", "model_mib", "peak_mib"]
    assert lines[heading].split() == names
    assert [line.split()[0] for line in lines[heading + 1 :]] == ["svd", "svd"]


def test_refusals(config: Config) -> None:
    """Algorithms are looked up before the data is read."""
    with pytest.raises(UsageError, match="no algorithm 'magic'"):
        evaluate(config, data="/nowhere", algorithms=["svd", "magic"])
    with pytest.raises(DataError):
        evaluate(config, data="/nowhere", algorithms=["svd"])
    with pytest.raises(UsageError, match="1 ratings cannot be cut into 5 folds"):
        evaluate(config, data="demo:1x1x1", algorithms=["svd"])
