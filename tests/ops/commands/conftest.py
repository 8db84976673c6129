"""An archive, and commands as they are called."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ops.cli import application
from ops.commands.archive import app
from ops.console.command_runner import run
from service.config import Config
from telemetry.archive.compaction import compact
from tests.support.archives.archive_commits import addition, commit, seal
from tests.support.archives.archived_days import FIRST, SECOND, Archive


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "var")


@pytest.fixture
def archive(config: Config, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.setenv("RECOLLECT_HOME", str(config.home))

    def call(*argv: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(app, argv)
        return code, *capfd.readouterr()

    return call


@pytest.fixture(params=["jsonl", "parquet", "both", "open"])
def filled(request: pytest.FixtureRequest, config: Config) -> Config:
    """Four events of three dates and one dead letter, in files of every kind; nothing beyond a commit counts."""
    root = config.archive_dir
    commit(root, addition(FIRST, [(9, "dead_lettered")]))
    if request.param in {"parquet", "both"}:
        seal(root)
        list(compact(root, "2027-01-01"))
    commit(root, addition(SECOND))
    if request.param != "open":
        seal(root)
    if request.param == "parquet":
        list(compact(root, "2027-01-01"))
    if request.param == "open":
        for path in root.glob("*/*.jsonl"):
            with path.open("ab") as file:
                file.write(b'{"class": "feedback", "not": "committed"}\n{"torn')
    return config


@pytest.fixture
def recollect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in a home; returns its exit code, its output and its errors."""

    def call(home: Path, *argv: str) -> tuple[int, str, str]:
        monkeypatch.setenv("RECOLLECT_HOME", str(home))
        code = run(application([argv[0]]), list(argv))
        return code, *capsys.readouterr()

    return call
