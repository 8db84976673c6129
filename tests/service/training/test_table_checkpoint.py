"""A fit that was killed continues from its tables, and ends with the bytes of one that was not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.models.snapshot import ModelSnapshot
from service.training.algorithms import ials, svd
from service.training.algorithms.ials import IalsConfig
from service.training.algorithms.registry import Fit
from service.training.algorithms.svd import SvdConfig
from service.training.checkpoint_folder import checkpoints_in
from service.training.data import datasets

N_EPOCHS = 4
CASES = [(ials.fit, IalsConfig(n_factors=6, n_epochs=N_EPOCHS, block_size=4)), (svd.fit, SvdConfig(n_epochs=N_EPOCHS))]
DATA = datasets.read("demo:60x40x900")


class Killed(Exception):
    """What ends a fit in the middle."""


def fitted(fit: Fit, config: Any, folder: Path, *, killed_after: int = -1, seed: int = 7) -> tuple[list[bytes], int]:
    """Return the tables of a fit and the epochs that it began with; one that is killed leaves its checkpoint."""
    begun: list[int] = []

    def progress(_: str, done: int, __: int) -> None:
        begun.append(done)
        if done == killed_after:
            raise Killed

    with checkpoints_in(folder, interval_s=0):
        return tables(fit(DATA, config, np.random.default_rng(seed), progress)), begun[0]


def tables(snapshot: ModelSnapshot) -> list[bytes]:
    found = (snapshot.user_factors, snapshot.item_factors, snapshot.user_bias, snapshot.item_bias)
    return [table.tobytes() for table in found]


@pytest.mark.parametrize(("fit", "config"), CASES)
def test_a_killed_fit_continues_to_the_same_bytes(fit: Fit, config: Any, tmp_path: Path) -> None:
    """From the last epoch that was kept; a fit that ends well leaves no checkpoint."""
    whole, _ = fitted(fit, config, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Killed):
        fitted(fit, config, tmp_path, killed_after=2)
    with pytest.raises(Killed):
        fitted(fit, config, tmp_path, killed_after=3)
    assert fitted(fit, config, tmp_path) == (whole, 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("fit", "config"), CASES)
def test_another_fit_does_not_find_the_checkpoint(fit: Fit, config: Any, tmp_path: Path) -> None:
    """With another seed, or with other settings."""
    with pytest.raises(Killed):
        fitted(fit, config, tmp_path, killed_after=2)
    assert fitted(fit, config, tmp_path, seed=8)[1] == 0
    assert fitted(fit, type(config)(n_factors=5, n_epochs=N_EPOCHS), tmp_path)[1] == 0


@pytest.mark.parametrize(("fit", "config"), CASES)
def test_a_broken_checkpoint_costs_time_alone(fit: Fit, config: Any, tmp_path: Path) -> None:
    """A file that was cut short is not used in part."""
    whole, _ = fitted(fit, config, tmp_path)
    with pytest.raises(Killed):
        fitted(fit, config, tmp_path, killed_after=2)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:-5])
    assert fitted(fit, config, tmp_path) == (whole, 0)
