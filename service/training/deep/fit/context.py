"""The surroundings of one fit: its device, its seed, its checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Protocol

import numpy as np
import torch

from service.training.deep.group.group import Group
from service.training.interactions import Progress

CPU: Final = "cpu"


class KeptState(Protocol):
    """Where a loop keeps its state, as `Checkpoint`."""

    @property
    def is_due(self) -> bool:
        """Whether it is time to write."""

    def read(self) -> bytes | None:
        """Return what was written last; None if nothing was."""

    def write(self, content: Callable[[BinaryIO], None]) -> None:
        """Replace it by what `content` writes into a file."""

    def remove(self) -> None:
        """Remove it, because it cannot be read."""


@dataclass(frozen=True)
class FitContext:
    """What the training loop needs to know of a fit.

    Attributes:
        algorithm: Its name on the command line.
        config: The hyperparameters, a `NetworkTraining`.
        progress: Called with the stage "fit" and epochs.
        device: Where the network is trained.
        seed: From the generator of the fit.
        checkpoint: Where the loop keeps its state.
        group: The processes that train the network together; None for this one alone.
    """

    algorithm: str
    config: Any
    progress: Progress
    device: torch.device
    seed: int
    checkpoint: KeptState
    group: Group | None = None

    @property
    def mixes_precision(self) -> bool:
        """Whether products are computed in bfloat16: where there is a GPU that can."""
        return self.device.type != CPU and bool(torch.cuda.is_bf16_supported())

    def epoch_generator(self, epoch: int) -> np.random.Generator:
        """Seed PyTorch for an epoch, from 0, and return the generator of its batches."""
        for_torch, for_batches = np.random.SeedSequence([self.seed, epoch]).spawn(2)
        torch.manual_seed(int(for_torch.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        return np.random.default_rng(for_batches)
