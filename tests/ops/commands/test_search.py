import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from ops.commands.search import command
from ops.console.command_runner import run
from ops.console.search_watch import SearchWatch
from service.models.files import artefact, versions
from service.training.search.search_run import SearchProgress
from tests.support.machines.pseudo_terminal import run_with_terminal_stderr

ROOT = Path(__file__).resolve().parents[3]
DATA = ("--data", "demo:60x40x900")
DEMO = ("--algorithm", "svd", "--set", "n_epochs=2", "--set", "n_factors=4", "--folds", "2")
TWO = ("--space", "lr_all=0.001,0.02", "--method", "grid")
WIDE = ("--space", "lr_all=0.001..0.1:log", "--space", "reg_all=0.01..0.5:log")


def search(*arguments: str) -> int:
    """Run the command as `recollect search` does."""
    application = typer.Typer()
    application.command()(command)
    data = () if "--data" in arguments else DATA
    return run(application, [*data, *DEMO, *arguments])


def start_search(*arguments: str, home: Path) -> subprocess.Popen[str]:
    """Start the command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "ops", "search", *DATA, *DEMO, *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_line(process: subprocess.Popen[str], beginning: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(beginning):
            return
    pytest.fail(f"the process ended before it printed {beginning!r}")


def settings_and_folds(found: dict[str, Any]) -> list[tuple[object, object]]:
    return [(trial["settings"], trial["folds"]) for trial in found["trials"]]


def test_the_best_trials_are_printed_and_the_winner_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table on standard output, a line for each trial on standard error, a page, and a version.

    Its lists lose to popularity, so that it is not activated.
    """
    monkeypatch.setenv("RECOLLECT_HOME", str(tmp_path / "var"))
    page = tmp_path / "page.html"
    before = os.umask(0o022)
    try:
        assert search(*TWO, "--publish", "--report", str(page)) == 3
    finally:
        os.umask(before)
    state = [tmp_path / "var", *(tmp_path / "var").rglob("*")]
    assert {path: oct(path.stat().st_mode) for path in state if path.stat().st_mode & 0o077} == {}
    assert page.stat().st_mode & 0o777 == 0o644
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "demo:60x40x900: 900 ratings by 60 users of 40 items"
    assert lines[1].startswith("svd, 2 random folds over ratings, seed 0; 2 trials (2 complete) in ")
    assert lines[2].split() == ["trial", "rmse", "seconds", "lr_all"]
    assert [line.split()[-1] for line in lines[3:6]] == ["0.02", "0.001", "0.005"]
    assert lines[5].split()[0] == "defaults"
    assert lines[6].startswith("The best against the defaults: -0.")
    assert lines[7] == "Its settings: --set n_epochs=2 --set n_factors=4 --set lr_all=0.02"
    (version,) = versions.published(tmp_path / "var" / "models")
    assert lines[8] == f"Published {version}, fitted on all the data. It is not active."
    assert f"activate the new one in any case with: recollect models activate {version} --force\n" in err
    assert len(lines) == 9
    manifest = artefact.read_manifest(tmp_path / "var" / "models" / str(version))
    assert {name: manifest["settings"][name] for name in ("lr_all", "n_factors")} == {"lr_all": 0.02, "n_factors": 4}
    assert "trial 0 complete, rmse " in err
    assert "2 of 2 done, best rmse " in err
    assert "0.02" in page.read_text(encoding="utf-8")


def test_an_algorithm_that_only_ranks_is_searched_by_ndcg(capsys: pytest.CaptureFixture[str]) -> None:
    """The default measure is ndcg@10, and larger is better."""
    application = typer.Typer()
    application.command()(command)
    arguments = ["--data", "demo:60x40x900", "--algorithm", "item_knn", "--space", "n_neighbours=1,30"]
    assert run(application, [*arguments, "--method", "grid", "--folds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["protocol"]["measure"] == "ndcg@10"
    best, worse = (found["trials"][number]["mean"] for number in found["ranked"])
    assert best > worse


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard output, with nothing before or after."""
    assert search(*TWO, "--json", "--seed", "3", "--measure", "ndcg@10", "--relevant-from", "4") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["protocol"]["measure"] == "ndcg@10"
    assert found["protocol"]["seed"] == 3
    assert found["space"] == {"lr_all": {"values": [0.001, 0.02]}}
    assert found["best"]["assignments"][:2] == ["n_epochs=2", "n_factors=4"]
    assert found["is_interrupted"] is False


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--method", "magic"), "There is no method 'magic'; the methods are tpe, grid and random."),
        (("--measure", "magic"), "There is no measure 'magic'"),
        (("--split", "given"), "A search cannot use the split 'given'"),
        (("--space", "lr_all"), "A space is given as name=low..high"),
        (("--set", "lr_all=0.1", "--space", "lr_all=0.1,0.2"), "lr_all is both fixed and searched"),
        (("--report", "/nowhere/page.html"), "The page /nowhere/page.html cannot be written"),
        (("--data", "/nowhere"), "/nowhere"),
    ],
)
def test_refusals_are_one_sentence(arguments: Sequence[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, with exit code 2, before any process starts."""
    assert search(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err.splitlines()[-1]


def test_a_killed_search_is_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After kill -9 the same command ends as an undisturbed search does; no process of the killed one survives it."""
    home, study = tmp_path / "tmp", tmp_path / "study"
    home.mkdir()
    arguments = (*WIDE, "--trials", "25")
    process = start_search(*arguments, "--study", str(study), home=home)
    wait_for_line(process, "trial 2 ")
    process.kill()
    # The workers hold standard error open; it ends when the last of them has.
    process.communicate(timeout=60)
    assert list(home.iterdir()) == []
    assert search(*arguments, "--study", str(study), "--json") == 0
    resumed = json.loads(capsys.readouterr().out)
    assert search(*arguments, "--json") == 0
    undisturbed = json.loads(capsys.readouterr().out)
    assert settings_and_folds(resumed) == settings_and_folds(undisturbed)
    assert resumed["best"]["mean"] == undisturbed["best"]["mean"]


def test_ctrl_c_prints_the_trials_so_far(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table of the trials so far, exit code 130, and no traceback of any process."""
    home, study = tmp_path / "tmp", tmp_path / "study"
    home.mkdir()
    arguments = (*WIDE, "--trials", "500", "--study", str(study))
    process = start_search(*arguments, "--publish", home=home)
    wait_for_line(process, "trial 2 ")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.splitlines()[2].split()[:2] == ["trial", "rmse"]
    assert "Published" not in out
    assert err.splitlines()[-1].startswith("recollect: Interrupted after ")
    assert err.splitlines()[-1].endswith("; the same command continues from there.")
    assert "Traceback" not in err
    assert list(home.iterdir()) == []


def test_an_estimate_is_printed_before_the_first_trial_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan first, and the time of a trial after its first fold."""
    monkeypatch.setenv("RECOLLECT_HOME", str(tmp_path / "var"))
    assert search(*TWO) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("search", "trial"))]
    assert lines[0] == "search: first the defaults, in 2 folds; then 2 trials of 2 folds each, 1 at a time"
    assert lines[1].startswith("search: a fold takes ")
    assert "so that a trial takes about " in lines[1]
    assert "and the 2 trials about " in lines[1]
    assert lines[2].startswith("trial 0 ")


def test_progress_is_printed_within_a_trial(capsys: pytest.CaptureFixture[str]) -> None:
    """A line every few seconds, for the defaults and for the trials after them."""
    now_s = 0.0
    standing = SearchProgress(0, 50, 0, None, None, n_folds=5, n_defaults_folds=0, n_workers=2)
    with SearchWatch("rmse", clock=lambda: now_s) as watch:
        watch(standing)
        now_s = 90.0
        watch(replace(standing, fold_s=90.0, n_defaults_folds=1))
        watch(replace(standing, fold_s=90.0, n_defaults_folds=2))
        now_s = 180.0
        watch(replace(standing, fold_s=90.0, n_defaults_folds=2))
        now_s = 600.0
        watch(replace(standing, fold_s=90.0, n_defaults_folds=None, n_folds_under_way=3))
    assert capsys.readouterr().err.splitlines() == [
        "search: first the defaults, in 5 folds; then 50 trials of 5 folds each, 2 at a time",
        "search: a fold takes 90 s, so that a trial takes about 8 min, and the 50 trials about 3.1 h",
        "search, 2 of 5 folds of the defaults",
        "search, 3 folds under way",
    ]


def test_data_without_ratings_is_refused_for_a_rating_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Equal ratings are refused for an error measure."""
    monkeypatch.setenv("RECOLLECT_HOME", str(tmp_path / "var"))
    path = tmp_path / "t.csv"
    path.write_text("".join(f"u{n % 20},i{n * 7 % 30}\n" for n in range(200)))
    assert search(*TWO, "--data", str(path)) == 2
    assert "has no ratings, and svd predicts ratings" in capsys.readouterr().err
    path.write_text("".join(f"u{n % 20},i{n * 7 % 30},4\n" for n in range(200)))
    assert search(*TWO, "--data", str(path)) == 2
    assert "are equal, so that rmse is meaningless: search by --measure ndcg@10" in capsys.readouterr().err


def test_a_bar_on_a_terminal() -> None:
    """It shows the best value so far, and is removed at the end."""
    done = run_with_terminal_stderr(["-m", "ops", "search", *DATA, *DEMO, *TWO], columns=120)
    assert done.code == 0
    assert done.out.startswith(b"demo:60x40x900")
    assert b"best rmse " in done.drawn
    assert "━".encode() in done.drawn
    assert b"trial 0 complete" not in done.drawn


def test_the_options_load_no_numerical_library() -> None:
    """Other commands import this file, too; only a search needs Optuna."""
    program = "import ops.commands.search, sys; print({'optuna', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
