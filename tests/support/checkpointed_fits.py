"""Fits that keep checkpoints, on data so small that each takes a fraction of a second.

As a program, it lets processes fit that are killed after each checkpoint: `python -m tests.support.checkpointed_fits
FOLDER` prints a JSON object, by the name of the fit, of what `Survived` names.
"""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np

from service.executors.code_version import own_version
from service.models.snapshot import ModelSnapshot
from service.training.algorithms import nmf, pure_svd, svd, svdpp
from service.training.algorithms.ials import ials
from service.training.algorithms.ials.ials import IalsConfig
from service.training.algorithms.kernels import threads
from service.training.algorithms.next_item import next_item
from service.training.algorithms.next_item.next_item import NextItemConfig
from service.training.algorithms.nmf import NmfConfig
from service.training.algorithms.pure_svd import PureSvdConfig
from service.training.algorithms.registry import Fit
from service.training.algorithms.svd import SvdConfig
from service.training.algorithms.svdpp import SvdppConfig
from service.training.checkpoints.folder import Checkpoint, checkpoints_in
from service.training.data import datasets
from service.training.interactions import Interactions, Progress, no_progress

# Dense enough for `next_item` to try factors.
DATA: Final = "demo:60x40x1300"
N_EPOCHS: Final = 3
_MOST_KILLS: Final = 20


class CheckpointedFit(NamedTuple):
    """A fit, and how many checkpoints it writes if each step ends with one."""

    fit: Fit
    config: Any
    n_checkpoints: int


FITS: Final = {
    "ials": CheckpointedFit(ials.fit, IalsConfig(n_factors=6, n_epochs=N_EPOCHS, block_size=4), N_EPOCHS),
    "svd": CheckpointedFit(svd.fit, SvdConfig(n_factors=6, n_epochs=N_EPOCHS), N_EPOCHS),
    "svdpp": CheckpointedFit(svdpp.fit, SvdppConfig(n_factors=6, n_epochs=2), 2),
    "nmf": CheckpointedFit(nmf.fit, NmfConfig(n_factors=6, n_epochs=2, n_starts=2), 4),
    "pure_svd": CheckpointedFit(pure_svd.fit, PureSvdConfig(n_factors=6), 5),
    # Four candidates, the basis of factors in five steps, their score, the sums over pairs, and the lists.
    "next_item": CheckpointedFit(next_item.fit, NextItemConfig(n_factors=6), 12),
    # Two candidates, the bases of their factors and of those of all data in five steps each, and these.
    "next_item factors": CheckpointedFit(next_item.fit, NextItemConfig(n_factors=6, form="factors", reverse=0.0), 18),
}


class Survived(NamedTuple):
    """What became of a fit: the kills, and the digest of the model with and without them."""

    n_kills: int
    killed: str
    never_killed: str


def fitted(name: str, data: Interactions, *, seed: int = 7, progress: Progress = no_progress) -> list[bytes]:
    """Return the tables and the settings of a fit."""
    case = FITS[name]
    return tables(case.fit(data, case.config, np.random.default_rng(seed), progress))


def tables(model: ModelSnapshot) -> list[bytes]:
    """Return everything that a fit has learnt."""
    found: list[Any] = [model.user_factors, model.item_factors, model.user_bias, model.item_bias]
    if model.input_factors is not None:
        found.append(model.input_factors)
    if model.neighbourhood is not None:
        weights = model.neighbourhood.weights
        found += [weights.data, weights.indices, weights.indptr]
    return [table.tobytes() for table in found] + [json.dumps(model.settings).encode()]


def main(folder: str) -> None:
    """Print what became of each fit.

    Each process is forked from this one, because the import of the kernels takes a second.
    """
    data = datasets.read(DATA)
    own_version()  # read by this process, not by each
    found = {}
    with threads.limit(1):
        for number, name in enumerate(FITS):
            never_killed = _digest(fitted(name, data))
            n_kills = 0
            while (killed := _in_a_process(Path(folder) / str(number), name, data)) is None and n_kills < _MOST_KILLS:
                n_kills += 1
            found[name] = Survived(n_kills, killed or "", never_killed)
    print(json.dumps(found))


def _in_a_process(folder: Path, name: str, data: Interactions) -> str | None:
    """Fit in a process that is killed after its first checkpoint; return a digest, or None if it was killed."""
    receiving, sending = os.pipe()
    child = os.fork()
    if not child:
        os.close(receiving)
        _die_after_a_checkpoint()
        with checkpoints_in(folder, 0.0):
            os.write(sending, _digest(fitted(name, data)).encode())
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        received = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return None
    if status:
        raise SystemExit("The fit failed.")
    return received.decode()


def _die_after_a_checkpoint() -> None:
    write = Checkpoint.write

    def write_and_die(self: Checkpoint, content: Callable[[BinaryIO], None]) -> None:
        write(self, content)
        os.kill(os.getpid(), signal.SIGKILL)

    Checkpoint.write = write_and_die  # type: ignore[method-assign]


def _digest(found: list[bytes]) -> str:
    return hashlib.sha256(b"".join(found)).hexdigest()


if __name__ == "__main__":
    main(sys.argv[1])
