"""Fits of networks by a training group, if there is an executor.

Every member has the data and runs the fit, whose loop shares the batches. The first one then makes the model, alone.
The command keeps the checkpoint, which members get through the first one: they share no disk.
"""

from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np

from service.errors import LeftGroup
from service.executors.executor import Executor, executor_in_use
from service.executors.member import Member
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.registry import Fit
from service.training.checkpoints.folder import Checkpoint
from service.training.deep.fit.digest import fit_digest
from service.training.deep.group.group import Group, training_in
from service.training.interactions import Interactions, Progress

STAGE: Final = "fit"
# Of a fit that keeps no checkpoint for a later command; its group goes on after a death anyway.
_INTERVAL_S: Final = 60.0


@dataclass(frozen=True)
class DataParallelFit:
    """A fit that the workers of the executor in use do together; without one, this process does it.

    Attributes:
        algorithm: Its name on the command line.
        fit: At the top level of a module, with a training loop within `torch_run`.
    """

    algorithm: str
    fit: Fit

    def __call__(self, data: Interactions, config: Any, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
        """Fit, as `Algorithm.fit`."""
        executor = executor_in_use()
        if executor is None:
            return self.fit(data, config, rng, progress)
        return fit_in_group(executor, self.algorithm, self.fit, data, config, rng, progress)


def fit_in_group(
    executor: Executor,
    algorithm: str,
    fit: Fit,
    data: Interactions,
    config: Any,
    rng: np.random.Generator,
    progress: Progress,
) -> ModelSnapshot:
    """Fit by all workers of an executor.

    Raises:
        RecollectError: As a fit in this process.
        RunError: Members are lost again and again.
    """
    surroundings = {"rng": rng.bit_generator.state, "n_members": executor.n_workers}
    checkpoint = Checkpoint(f"{algorithm}-{fit_digest(algorithm, data, config, surroundings)}")

    def keep(content: bytes) -> None:
        def write(file: BinaryIO) -> None:
            file.write(content)

        checkpoint.write(write)

    shared = executor.put(data)
    try:
        model = executor.run_group(
            fit_as_member,
            (fit, shared, config, rng),
            stage=STAGE,
            kept=checkpoint.read(),
            keep=keep,
            keep_interval_s=_INTERVAL_S if checkpoint.interval_s is None else checkpoint.interval_s,
            progress=progress,
        )
    finally:
        executor.release([shared])
    assert model is not None  # noqa: S101  # the first member makes it
    return model


def fit_as_member(
    member: Member, fit: Fit, data: Interactions, config: Any, rng: np.random.Generator
) -> ModelSnapshot | None:
    """Do the part of one member; the first one returns the model.

    Args:
        member: Its place.
        fit: As in `DataParallelFit`.
        data: What the network learns from.
        config: Its hyperparameters.
        rng: The generator of the fit, the same for all members.
    """
    with training_in(Group(member)):
        try:
            return fit(data, config, rng, member.progress)
        except LeftGroup:
            return None
