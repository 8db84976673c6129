"""One fit with PyTorch: its seeds, threads, device and checkpoint.

Invariant: what a fit computes depends on the data, the hyperparameters, the generator, the kind of device and, for
large data, the number of threads alone. A fit that was killed and is run again computes the same bytes as one that was
not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import numpy as np
import torch

from service.errors import LeftGroup
from service.training.algorithms.kernels import threads
from service.training.checkpoints.folder import Checkpoint
from service.training.deep.fit.context import CPU, FitContext, KeptState
from service.training.deep.fit.digest import fit_digest
from service.training.deep.fit.learning_curve import LearningCurve
from service.training.deep.fit.objective import Objective
from service.training.deep.fit.training_loop import TrainingLoop, Validation
from service.training.deep.group.checkpoint import GroupCheckpoint
from service.training.deep.group.group import group_in_use
from service.training.interactions import Interactions, Progress

D = TypeVar("D")
B = TypeVar("B")
# Below so many interactions, steps are so short that threads wait for each other most of the time.
_THREADS_FROM: Final = 200_000


class TorchRun:
    """A fit within `torch_run`.

    Attributes:
        context: Its surroundings.
    """

    def __init__(self, context: FitContext) -> None:
        self.context = context
        self._curve = LearningCurve()

    @property
    def device(self) -> torch.device:
        """Where the network is trained."""
        return self.context.device

    @property
    def curve(self) -> tuple[dict[str, Any], ...]:
        """The learning curve, as `LearningCurve.as_json` describes it."""
        return tuple(self._curve.as_json())

    def train(
        self,
        network: torch.nn.Module,
        objective: Objective[D, B],
        *,
        validation: Validation | None = None,
        optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer] | None = None,
        rate: Callable[[int], float] | None = None,
    ) -> None:
        """Train a network, once a fit; it ends in evaluation mode, with the parameters and buffers of the best epoch.

        Args:
            network: On `device`. What must survive a killed process is in its parameters and buffers.
            objective: What it learns; batches are moved to `device`.
            validation: Measures each epoch; without one, all epochs are trained and the last is kept.
            optimizer: Makes the optimiser; None for Adam with the settings of the Config.
            rate: The factor of the learning rate at a step, from 0; None for 1.

        Raises:
            TrainingDiverged: The loss, the validation or a parameter is not finite.
            RunError: A checkpoint cannot be written.
            LeftGroup: This is not the first member of the group, which makes the model.
        """
        self._curve = TrainingLoop(self.context, network, objective, validation, optimizer, rate).run()
        group = self.context.group
        if group is not None and not group.is_first:
            raise LeftGroup("The first member makes the model.")


@contextmanager
def torch_run(
    algorithm: str, data: Interactions, config: Any, rng: np.random.Generator, progress: Progress
) -> Iterator[TorchRun]:
    """Set PyTorch up for a fit, and undo that afterwards. A network is built inside: its first weights are seeded.

    Args:
        algorithm: Its name on the command line.
        data: What it learns from.
        config: A `NetworkTraining`.
        rng: The generator of the fit.
        progress: Called with the stage "fit" and epochs.
    """
    seed = int(rng.integers(1 << 62))
    group = group_in_use()
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if has_gpu else CPU)
    if has_gpu and group is not None:
        # Each member sees all devices of its machine, of one machine as of a cluster: they take them in turn.
        torch.cuda.set_device(group.share.rank % torch.cuda.device_count())
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    with torch.random.fork_rng(enabled=True), threads.one_blas_thread():
        torch.set_num_threads(threads.count() if len(data) >= _THREADS_FROM else 1)
        # Some operations have no deterministic form on a GPU, where a second fit may differ in the last bits.
        # `use_deterministic_algorithms` does the same, and imports PyTorch's compiler, which takes seconds.
        torch.set_deterministic_debug_mode("default" if has_gpu else "error")
        torch.manual_seed(seed)
        surroundings = {"seed": seed, "device": device.type, "threads": torch.get_num_threads()}
        name = f"{algorithm}-{fit_digest(algorithm, data, config, surroundings)}"
        checkpoint: KeptState = Checkpoint(name) if group is None else GroupCheckpoint(group)
        try:
            yield TorchRun(FitContext(algorithm, config, progress, device, seed, checkpoint, group))
        finally:
            torch.set_num_threads(before[0])
            torch.set_deterministic_debug_mode(before[1])
