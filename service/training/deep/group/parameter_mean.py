"""Parameters averaged after some batches of each member (local SGD).

Each member learns from batches of its own, with the optimiser of the loop. When parameters are averaged, so are the
optimiser's means of gradients: they belong to the parameters, and members go on from one state.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np
import torch

from service.training.deep.group.gradient_sum import add_together
from service.training.deep.group.group import Group
from service.training.deep.group.share import ALONE

D = TypeVar("D")


class ParameterMean:
    """The exchange of parameters, see `Exchange`.

    Args:
        group: The group.
        network: On its device.
        optimizer: Of the network.
        every: The batches of each member between two exchanges, at least 1.
        seed: Of the fit.
    """

    share = ALONE

    def __init__(
        self, group: Group, network: torch.nn.Module, optimizer: torch.optim.Optimizer, every: int, seed: int
    ) -> None:
        self._group: Final = group
        self._network: Final = network
        self._optimizer: Final = optimizer
        self._every: Final = every
        self._seed: Final = seed
        self._n_steps = 0  # since members had the same parameters
        self._exchanged = torch.zeros((), dtype=torch.float64)  # the sum of losses at that time

    @property
    def n_at_once(self) -> int:
        """The batches of a step: one for each member."""
        return self._group.share.size

    @property
    def is_synced(self) -> bool:
        """Whether members have the same parameters."""
        return not self._n_steps

    def own(self, drafts: Sequence[D]) -> D:
        """Return the batch of this member; in the last step of an epoch, some may take the same one."""
        return drafts[self._group.share.rank % len(drafts)]

    def start(self, epoch: int, step: int, loss_sum: torch.Tensor) -> None:
        """Draw other random numbers than the other members."""
        self._exchanged = loss_sum.clone()
        self._draw_anew(epoch, step)

    def after_gradients(self, loss: torch.Tensor) -> None:
        """Do nothing: gradients are those of the own batch."""

    def after_step(self, epoch: int, step: int, loss_sum: torch.Tensor) -> None:
        """Average the parameters if it is time."""
        self._n_steps += 1
        if self._n_steps >= self._every:
            self._average(loss_sum)
            # The state of PyTorch's generator, another one in each member, then follows from the step and the rank.
            self._draw_anew(epoch, step)

    def after_epoch(self, loss_sum: torch.Tensor) -> None:
        """Average the parameters if members have taken steps since the last time."""
        if self._n_steps:
            self._average(loss_sum)

    def _average(self, loss_sum: torch.Tensor) -> None:
        """Give all members the means of parameters and of the optimiser's state, and the sum of losses."""
        # All members have taken as many steps.
        moments = [value for state in self._optimizer.state.values() for name, value in state.items() if name != "step"]
        tensors = [tensor.detach() for tensor in (*self._network.parameters(), *self._network.buffers(), *moments)]
        means = [tensor for tensor in tensors if tensor.is_floating_point()]
        add_together(self._group, means)
        for tensor in means:
            tensor.div_(self._group.share.size)
        own = loss_sum - self._exchanged
        self._group.add(own)
        loss_sum.copy_(own + self._exchanged)
        self._exchanged = loss_sum.clone()
        self._n_steps = 0

    def _draw_anew(self, epoch: int, step: int) -> None:
        sequence = np.random.SeedSequence([self._seed, epoch, step, self._group.share.rank])
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))
