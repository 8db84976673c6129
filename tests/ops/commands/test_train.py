import json
import os
import re
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
from service.models.files import active_model, artefact, versions
from tests.support.machines.pseudo_terminal import run_with_terminal_stderr

ROOT = Path(__file__).resolve().parents[3]
SMALL = ("n_factors=4", "n_epochs=3")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    config = Config(home=tmp_path / "var")
    monkeypatch.setenv("RECOLLECT_HOME", str(config.home))
    return config


def train(data: str, *, settings: Sequence[str] = (), **options: Any) -> int:
    """Call the command as its parsed options do; the algorithm is one that predicts ratings, unless named."""
    return command(data=[data], settings=list(settings), **({"algorithm": "svd"} | options))


def test_the_summary_names_data_measures_and_version(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """It is on standard output; progress is on standard error, in plain lines without a terminal."""
    assert train("demo:60x40x900", settings=SMALL, activate=True) == 0
    out, err = capsys.readouterr()
    version = active_model.version(config.models_dir)
    lines = out.splitlines()
    assert lines[0] == "Read demo:60x40x900: 900 ratings by 60 users of 40 items."
    assert re.match("On [0-9]+ ratings held out: RMSE ", lines[1])
    assert lines[2].startswith(f"Published {version} in {config.models_dir} after ")
    assert "It is active" in lines[2]
    assert "measure: 100 %" in err
    assert "fit: 100 %" in err


def test_the_summary_says_what_the_item_index_finds(
    config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a catalogue that is large enough for one; and why there is none, if it was refused."""
    pytest.importorskip("faiss", reason="The extra `ann` is not installed.")
    monkeypatch.setenv("RECOLLECT_INDEX_ITEMS", "1000")
    monkeypatch.setenv("RECOLLECT_INDEX_RECALL_FLOOR", "0.5")
    assert train("demo:60x1200x9000", settings=SMALL) in {0, 3}
    sentence = "^The item index finds [0-9.]+% of the ten best items in [0-9.]+ ms.$"
    assert re.search(sentence, capsys.readouterr().out, re.MULTILINE)
    monkeypatch.setenv("RECOLLECT_INDEX_RECALL_FLOOR", "1")
    assert train("demo:60x1200x9000", settings=SMALL) in {0, 3}
    assert "Lists are exact, without an item index. The index finds 0." in capsys.readouterr().out


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
    assert train("demo:60x40x900", algorithm="popularity", as_json=True) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest == artefact.read_manifest(config.models_dir / manifest["version"])


def test_a_held_back_version_has_its_own_status(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 3, and the message has the reason and the commands to activate it. By option it is 0."""
    data = "demo:300x200x9000"
    assert train(data, algorithm="popularity") == 0
    active = active_model.version(config.models_dir)
    assert train(data, settings=SMALL) == 3
    out, err = capsys.readouterr()
    held_back = re.search("Published (svd-[^ ]+) in ", out)
    assert held_back is not None
    assert f"It is not active; activate it with: recollect models activate {held_back[1]} --force" in out
    assert "Its lists are worse than a list by popularity" in out
    assert "for better lists train without --algorithm" in out
    (line,) = (line for line in err.splitlines() if "not activated" in line)
    assert "its lists are worse than lists by popularity: its NDCG@10 is" in line
    assert line.endswith(f"recollect models activate {held_back[1]} --force (or train with --force)")
    assert active_model.version(config.models_dir) == active
    assert train(data, settings=SMALL, activate=False) == 0
    assert train(data, settings=SMALL, activate=True) == 0
    assert "It was activated as requested, although its lists are worse" in capsys.readouterr().out
    assert active_model.version(config.models_dir) != active


@pytest.mark.parametrize("on_terminal", [False, True])
def test_the_candidates_of_auto_are_shown(
    config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, on_terminal: bool
) -> None:
    """As a table on a terminal, elsewhere as plain lines: their measures, what they cost, the time, and the choice."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: on_terminal)
    assert train("demo:300x200x9000", algorithm=None, budget=1000.0) == 0
    out, _ = capsys.readouterr()
    lines = out.splitlines()
    assert re.fullmatch(
        r"Candidates, judged on the youngest interactions of 300 users; [0-9.]+ s of at most 1000 s:", lines[0]
    )
    manifest = artefact.read_manifest(config.models_dir / str(active_model.version(config.models_dir)))
    selection = manifest["selection"]
    verdict = lines.index(f"Chosen: {selection['chosen']}; {selection['why']}.")
    rows = lines[1:verdict]
    if on_terminal:
        assert rows.pop(0).split() == ["algorithm", "ndcg@10", "recall@20", "seconds", "note"]
    for row, candidate in zip(rows, selection["candidates"], strict=True):
        assert candidate["algorithm"] in row
        assert f"{candidate['ndcg@10']:.4f}" in row
    assert manifest["algorithm"] == selection["chosen"].split()[0]
    assert manifest["measures"]["ndcg@10"] >= manifest["measures"]["baseline"]["ndcg@10"]


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


def test_a_training_killed_while_it_chooses_leaves_nothing(config: Config) -> None:
    """The next one starts as if there had been none."""
    argv = [sys.executable, "-m", "ops", "train", "--data", "demo:300x200x9000"]
    environ = {**os.environ, "RECOLLECT_HOME": str(config.home)}
    process = subprocess.Popen(argv, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("choose:"):
            break
    process.kill()
    out, _ = process.communicate(timeout=60)
    assert out == ""
    assert versions.published(config.models_dir) == []
    assert not list(config.home.rglob("*.tmp"))
    assert train("demo:60x40x900", algorithm=None) == 0
    assert active_model.version(config.models_dir) is not None


def test_a_bar_on_a_terminal(config: Config, tmp_path: Path) -> None:
    """It is drawn, and removed at the end."""
    program = (
        "import sys; from ops.commands.train import command\n"
        f"sys.exit(command(data=['demo:60x40x900'], algorithm='svd', activate=True, settings={SMALL!r}))"
    )
    done = run_with_terminal_stderr(["-c", program], columns=100)
    assert done.code == 0
    assert done.out.startswith(b"Read demo:60x40x900")
    assert "━".encode() in done.drawn
    assert b"fit" in done.drawn
    assert b"100 %\r\n" not in done.drawn
