import os
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from service.models.publication.user_erasure import ModelUserEraser
from service.training.checkpoints.folder import KEPT_S, Checkpoint, checkpoints_in
from service.training.deep.fit.network_training import NetworkTraining
from telemetry.pseudonym import Pseudonymiser
from tests.support.networks import small_network
from tests.support.networks.small_network import trained

ROOT = Path(__file__).resolve().parents[5]
CONFIG = NetworkTraining(n_epochs=3, batch_size=300, patience=2, lr=0.01, clip_norm=1.0)


class Stopped(Exception):
    """What ends a fit in a test."""


class Stop:
    """Raises before a step, counted from 1 in this process."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self) -> None:
        self.left -= 1
        if not self.left:
            raise Stopped


@pytest.mark.parametrize("n_steps", [1, 2])
def test_a_fit_that_is_stopped_again_and_again_ends_as_one_that_is_not(tmp_path: Path, n_steps: int) -> None:
    """A process that lives for n steps adds n to those of the checkpoint; bytes and curve are the same at the end."""
    expected = trained(CONFIG, measured=True)
    n_starts = 0
    for _ in range(40):
        n_starts += 1
        try:
            with checkpoints_in(tmp_path, 0.0):
                found = trained(CONFIG, measured=True, before_step=Stop(n_steps + 1))
        except Stopped:
            continue
        break
    assert found == expected
    assert n_starts > 8 // n_steps
    assert list(tmp_path.iterdir()) == []


def test_other_data_settings_or_seeds_have_other_checkpoints(tmp_path: Path) -> None:
    """A fit never continues from another one's checkpoint."""
    for config, seed in ((CONFIG, 0), (CONFIG, 1), (NetworkTraining(n_epochs=4, lr=0.02), 0)):
        with pytest.raises(Stopped), checkpoints_in(tmp_path, 0.0):
            trained(config, seed=seed, before_step=Stop(3))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_broken_checkpoint_costs_only_time(tmp_path: Path) -> None:
    """A fit whose checkpoint cannot be read begins anew."""
    expected = trained(CONFIG)
    with pytest.raises(Stopped), checkpoints_in(tmp_path, 0.0):
        trained(CONFIG, before_step=Stop(3))
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    with checkpoints_in(tmp_path, 0.0):
        assert trained(CONFIG) == expected


def test_an_erasure_while_a_checkpoint_is_written_does_not_end_the_training(tmp_path: Path) -> None:
    """The erasure of a user removes the file; the next checkpoint is written again."""

    def content_then_erasure(file: BinaryIO) -> None:
        file.write(b"rows of users")
        ModelUserEraser(tmp_path / "models", Pseudonymiser(), None, tmp_path / "checkpoints").erase_now(["u1"])

    with checkpoints_in(tmp_path / "checkpoints", 0.0):
        checkpoint = Checkpoint("a")
        checkpoint.write(content_then_erasure)
        assert list((tmp_path / "checkpoints").iterdir()) == []
        checkpoint.write(lambda file: None)
        assert checkpoint.read() == b""


def test_old_checkpoints_are_removed(tmp_path: Path) -> None:
    """Those of a killed training that was not run again go after a week, and those of now stay."""
    for name, age_s in (
        ("old.checkpoint", KEPT_S + 60),
        ("new.checkpoint", 60),
        (".torn.tmp", 7200),
        ("mine.txt", 1e7),
    ):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    with checkpoints_in(tmp_path, 0.0):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.txt", "new.checkpoint"]


@pytest.mark.parametrize("suffix", [".checkpoint", ".tmp"])
def test_a_file_that_goes_while_old_ones_are_looked_for_ends_no_training(suffix: str, tmp_path: Path) -> None:
    """Another command has renamed it, or an erasure has removed it: its name is listed, and there is no file."""
    (tmp_path / f"gone{suffix}").symlink_to("nowhere")
    old = tmp_path / f"old{suffix}"
    old.write_bytes(b"")
    os.utime(old, (time.time() - KEPT_S - 60,) * 2)
    with checkpoints_in(tmp_path, 0.0):
        assert [file.name for file in tmp_path.iterdir()] == [f"gone{suffix}"]


def test_a_training_killed_at_any_moment_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """A process is killed by SIGKILL after a different number of steps each time, and run again until it ends."""
    argv = [sys.executable, "-m", small_network.__name__, str(tmp_path)]
    answer = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    n_kills, killed, never_killed = answer.stdout.split()
    assert int(n_kills) >= 3
    assert killed == never_killed
    assert len(killed) == 64
