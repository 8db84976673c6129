import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ops.commands.train import command
from service.config import Config
from service.errors import DataError
from service.models import active_model, artefact, versions
from tests.support.pseudo_terminal import run_with_terminal_stderr

ROOT = Path(__file__).resolve().parents[3]
SMALL = ("n_factors=4", "n_epochs=3")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    config = Config(home=tmp_path / "var")
    monkeypatch.setenv("RECOLLECT_HOME", str(config.home))
    return config


def train(data: str, *, settings: Sequence[str] = (), **options: Any) -> int:
    """Call the command as its parsed options do."""
    return command(data=[data], settings=list(settings), **options)


def test_the_summary_names_data_measures_and_version(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """It is on standard output; progress is on standard error, in plain lines without a terminal."""
    assert train("demo:60x40x900", settings=SMALL) == 0
    out, err = capsys.readouterr()
    version = active_model.version(config.models_dir)
    lines = out.splitlines()
    assert lines[0] == "Read demo:60x40x900: 900 ratings by 60 users of 40 items."
    assert lines[1].startswith("On 90 ratings held out: RMSE ")
    assert lines[2].startswith(f"Published {version} in {config.models_dir} after ")
    assert "It is active" in lines[2]
    assert "measure: 100 %" in err
    assert "fit: 100 %" in err


def test_bad_rows_are_shown(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their number, the first with file and line, and duplicates: on standard error."""
    path = tmp_path / "t.csv"
    path.write_text("user,item,rating\na,b,1\na,b,2\na,c,x\n")
    assert train(str(path), algorithm="svd", settings=SMALL, activate=False) == 0
    out, err = capsys.readouterr()
    assert "1 of 3 rows is bad and was left out, such as:\n  t.csv:4: the rating 'x' is not a finite number\n" in err
    assert "1 row was left out for a later one of the same user and item." in err
    assert "Not measured" in out
    assert "activate it with: recollect models activate svd-" in out


def test_json_is_the_manifest_and_nothing_else(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Exactly one object on standard output."""
    assert train("demo:60x40x900", settings=SMALL, as_json=True) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest == artefact.read_manifest(config.models_dir / manifest["version"])


def test_a_held_back_version_has_its_own_status(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 3, and the message has the reason and the command to activate it. By option it is 0."""
    config.home.mkdir()
    data = str(config.home / "ratings.csv")
    Path(data).write_text("".join(f"u{n // 50},i{n % 50},{1 + (n // 50 + n % 50) % 5}\n" for n in range(2000)))
    bad = ("n_factors=4", "init_std_dev=3", "lr_all=0", "n_epochs=1")
    assert train(data, settings=SMALL) == 0
    active = active_model.version(config.models_dir)
    assert train(data, settings=bad) == 3
    out, err = capsys.readouterr()
    assert "It is not active" in out
    assert "worse than the mean rating alone" in out
    assert "was published and not activated: its RMSE is" in err
    assert active_model.version(config.models_dir) == active
    assert train(data, settings=bad, activate=False) == 0
    assert train(data, settings=bad, activate=True) == 0
    assert "It was activated as requested, although its RMSE is" in capsys.readouterr().out
    assert active_model.version(config.models_dir) != active


def test_a_rating_model_with_poor_lists_says_so(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """A model with good errors can have lists worse than popularity."""
    assert train("demo:300x200x9000", algorithm="svd", as_json=True) == 0
    measures = json.loads(capsys.readouterr().out)["measures"]
    assert measures["ndcg@10"] < measures["baseline"]["ndcg@10"]
    assert train("demo:300x200x9000", algorithm="svd") == 0
    out = capsys.readouterr().out
    assert "Its lists are worse than a list by popularity" in out
    assert "train an algorithm that ranks, such as ials" in out


def test_what_is_refused_prints_no_result(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """The error is the command's; standard output stays empty."""
    with pytest.raises(DataError):
        train("/nowhere")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_ctrl_c_interrupts_training(config: Config, verb: str) -> None:
    """The status is 130, without a traceback or a partial version."""
    name = "algorithm" if verb == "train" else "algorithms"
    setting = "n_epochs=100000" if verb == "train" else "svd.n_epochs=100000"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "ops", verb, "--data", "demo:300x200x9000"),
            *(f"--{name}", "svd", "--set", setting),
        ],
        cwd=ROOT,
        env={**os.environ, "RECOLLECT_HOME": str(config.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(("measure:", "evaluate:")):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "recollect: Interrupted."
    assert "Traceback" not in err
    assert not config.models_dir.exists() or versions.published(config.models_dir) == []
    assert not list(config.home.rglob("*.tmp"))


def test_a_bar_on_a_terminal(config: Config, tmp_path: Path) -> None:
    """It is drawn, and removed at the end."""
    program = (
        "import sys; from ops.commands.train import command\n"
        f"sys.exit(command(data=['demo:60x40x900'], settings={SMALL!r}))"
    )
    done = run_with_terminal_stderr(["-c", program], columns=100)
    assert done.code == 0
    assert done.out.startswith(b"Read demo:60x40x900")
    assert "━".encode() in done.drawn
    assert b"fit" in done.drawn
    assert b"100 %\r\n" not in done.drawn
