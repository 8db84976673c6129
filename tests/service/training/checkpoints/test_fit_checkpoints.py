"""A fit that was killed continues from its checkpoint, and ends with the bytes of one that was not."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.training.checkpoints import digest
from service.training.checkpoints.folder import checkpoints_in
from service.training.data import datasets
from service.training.interactions import Interactions
from tests.support import checkpointed_fits
from tests.support.checkpointed_fits import DATA, FITS, Survived, fitted

ROOT = Path(__file__).resolve().parents[4]


class Killed(Exception):
    """What ends a fit in the middle."""


@pytest.fixture(scope="module")
def data() -> Interactions:
    return datasets.read(DATA)


@pytest.fixture(scope="module")
def survived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Survived]:
    """What became of fits whose processes were killed after each checkpoint."""
    argv = [sys.executable, "-m", checkpointed_fits.__name__, str(tmp_path_factory.mktemp("kept"))]
    answer = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name: Survived(*found) for name, found in json.loads(answer.stdout).items()}


def resumed(
    name: str, data: Interactions, folder: Path, *, killed_after: int = -1, seed: int = 7
) -> tuple[list[bytes], int]:
    """Return what a fit has learnt, and the steps that it began with; one that is killed leaves its checkpoint."""
    begun: list[int] = []

    def progress(_: str, done: int, __: int) -> None:
        begun.append(done)
        if done == killed_after:
            raise Killed

    with checkpoints_in(folder, interval_s=0):
        return fitted(name, data, seed=seed, progress=progress), begun[0]


def killed(name: str, data: Interactions, folder: Path, after: int) -> None:
    """Let a fit be killed after some steps."""
    with pytest.raises(Killed):
        resumed(name, data, folder, killed_after=after)


@pytest.mark.parametrize("name", FITS)
def test_a_process_killed_after_each_checkpoint_ends_with_the_same_bytes(
    name: str, survived: dict[str, Survived]
) -> None:
    """By SIGKILL. It repeats nothing: it writes no checkpoint twice."""
    found = survived[name]
    assert found.n_kills == FITS[name].n_checkpoints
    assert found.killed == found.never_killed
    assert len(found.killed) == 64


@pytest.mark.parametrize("name", FITS)
def test_a_killed_fit_continues_from_the_last_step(name: str, data: Interactions, tmp_path: Path) -> None:
    """That was kept; a fit that ends well leaves no checkpoint."""
    whole, begun = resumed(name, data, tmp_path)
    assert begun == 0
    assert list(tmp_path.iterdir()) == []
    killed(name, data, tmp_path, after=1)
    killed(name, data, tmp_path, after=2)
    assert len(list(tmp_path.iterdir())) == 1
    assert resumed(name, data, tmp_path) == (whole, 2)
    assert list(tmp_path.iterdir()) == []


def first_step(name: str, data: Interactions, folder: Path, seed: int = 7) -> int:
    """Return the steps that a fit begins with, and let it be killed there."""

    def progress(_: str, done: int, __: int) -> None:
        raise Killed(done)

    with pytest.raises(Killed) as begun, checkpoints_in(folder, interval_s=0):
        fitted(name, data, seed=seed, progress=progress)
    (done,) = begun.value.args
    return int(done)


@pytest.mark.parametrize("name", FITS)
def test_another_fit_does_not_find_the_checkpoint(
    name: str, data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another seed, other data, other settings, or other code."""
    killed(name, data, tmp_path, after=2)
    assert first_step(name, data, tmp_path) == 2
    assert first_step(name, data, tmp_path, seed=8) == 0
    ratings = data.ratings.copy()
    ratings[-1] += 0.5
    assert first_step(name, dataclasses.replace(data, ratings=ratings), tmp_path) == 0
    with monkeypatch.context() as patched:
        other = FITS[name]._replace(config=dataclasses.replace(FITS[name].config, n_factors=5))
        patched.setitem(FITS, name, other)
        assert first_step(name, data, tmp_path) == 0
    monkeypatch.setattr(digest, "own_version", lambda: "0.0.1-0123456789")
    assert first_step(name, data, tmp_path) == 0


@pytest.mark.parametrize("damaged_at", [-5, -1000, 0])
@pytest.mark.parametrize("name", ["ials", "next_item"])
def test_a_damaged_checkpoint_costs_time_alone(
    name: str, damaged_at: int, data: Interactions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A byte that has changed, or a file that was cut short, is noticed and said."""
    whole, _ = resumed(name, data, tmp_path)
    killed(name, data, tmp_path, after=2)
    (kept,) = tmp_path.iterdir()
    content = bytearray(kept.read_bytes())
    content[damaged_at] ^= 1
    kept.write_bytes(content if damaged_at else content[:-5])
    assert resumed(name, data, tmp_path) == (whole, 0)
    assert caplog.messages == [f"The checkpoint {kept} is damaged and was removed: the fit begins without it."]
