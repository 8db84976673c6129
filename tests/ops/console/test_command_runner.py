"""A refusal of the machine is one sentence without a traceback."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.cli import application
from ops.console.command_runner import exit_code_of, run

ROOT = Path(__file__).resolve().parents[3]


def test_a_refusal_of_the_machine_is_a_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It names the path; a defect of the program keeps its traceback."""
    file = tmp_path / "file"
    file.write_text("")
    assert exit_code_of((file / "below").mkdir) == 1
    assert capsys.readouterr().err == f"recollect: {file / 'below'} cannot be used: Not a directory.\n"

    def no_memory() -> None:
        raise MemoryError

    assert exit_code_of(no_memory) == 1
    assert "memory" in capsys.readouterr().err
    with pytest.raises(OSError, match="Bad file descriptor"):
        exit_code_of(lambda: os.close(10**6))


LOGGING = [["up", "--data", "demo:60x40x900", "--algorithm", "popularity"], ["serve"], ["consume"], ["balance"]]
# Commands that need the directory, and those for which what is not there is empty.
REFUSED = [
    ["train", "--data", "demo:60x40x900"],
    ["models", "activate", "x-20260101T000000-abcd"],
    ["keys", "create", "--scope", "events"],
]
EMPTY = [
    (["models", "list"], "No model is published in {home}/models; make one with: recollect train --data PATH.\n"),
    (["audit"], "No event has been accepted.\n"),
    (["archive", "list"], "Nothing is archived yet.\n"),
    (["archive", "compact", "--before", "2026-01-01"], "There is nothing to compact before 2026-01-01.\n"),
    (["deadletters", "list"], "No open dead letters.\n"),
]


def id_of(words: object) -> str:
    return "-".join(words[:2]) if isinstance(words, list) else str(words)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory that cannot be made: a file stands where its parent should be."""
    taken = tmp_path / "taken"
    taken.write_text("")
    monkeypatch.setenv("RECOLLECT_HOME", str(taken / "below"))
    monkeypatch.setenv("RECOLLECT_LOGS", str(tmp_path / "logs"))
    return taken / "below"


@pytest.mark.parametrize("words", REFUSED, ids=id_of)
def test_an_unusable_home_is_a_sentence_of_commands_that_need_it(
    words: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the last line on standard error, and names the path; another exception would leave the runner."""
    assert run(application(words[:1]), words) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("recollect: ")
    assert str(home) in last
    assert last.endswith(".")


@pytest.mark.parametrize(("words", "printed"), EMPTY, ids=[id_of(words) for words, _ in EMPTY])
def test_an_unusable_home_is_empty_for_commands_that_read(
    words: list[str], printed: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They say what they would say of a new installation."""
    assert run(application(words[:1]), words) == 0
    assert capsys.readouterr().out == printed.format(home=home)


def test_an_unusable_home_is_a_finding_of_doctor(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under `state`, with the setting that names another one."""
    assert run(application(["doctor"]), ["doctor"]) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("fail  state"))
    assert line.endswith(f"{home} does not exist and cannot be made in {home.parent}; name another in RECOLLECT_HOME.")


@pytest.mark.parametrize("name", ["RECOLLECT_HOME", "RECOLLECT_LOGS"])
@pytest.mark.parametrize("words", LOGGING, ids=id_of)
def test_an_unusable_directory_is_a_sentence_for_processes_that_stay(
    name: str, words: list[str], tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """A file stands where the directory should be; as for a read-only one, the command cannot make it."""
    taken = tmp_path / "taken"
    taken.write_text("")
    environ = {
        **os.environ,
        "RECOLLECT_HOME": str(tmp_path / "var"),
        "RECOLLECT_LOGS": str(tmp_path / "logs"),
        "RECOLLECT_PORT": str(free_port()),
        "RECOLLECT_REPLICA_PORT": str(free_port()),
        "RECOLLECT_ADMIN_PORT": str(free_port()),
        name: str(taken / "below"),
    }
    argv = [sys.executable, "-m", "ops", *words]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    assert str(taken) in done.stderr.splitlines()[-1]


def test_a_missing_package_of_training_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """As in an image that only serves; any other missing module is a defect."""

    def missing(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    assert exit_code_of(lambda: missing("numba.core")) == 2
    expected = "recollect: This needs the package numba.core, which is not installed: install recollect[train].\n"
    assert capsys.readouterr().err == expected
    with pytest.raises(ModuleNotFoundError):
        exit_code_of(lambda: missing("service.nothing"))
