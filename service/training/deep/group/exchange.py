"""What the members of a training group exchange while they train, and which part of the batches each computes.

Two ways, by `NetworkTraining.average_every`:

- 0, `GradientSum`: each batch is shared, and gradients are added at every step. The group computes what one process
  computes, but for the order of sums (synchronous data parallel training: J. Dean et al., "Large scale distributed deep
  networks", NIPS 2012; S. Li et al., "PyTorch distributed", VLDB 2020).
- n, `ParameterMean`: batches are dealt out, and parameters are averaged after every n batches of a member (S. U. Stich,
  "Local SGD converges fast and communicates little", ICLR 2019).

Invariant: what the loop keeps in a checkpoint, with `is_synced`, is the same in all members.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeVar

import torch

from service.training.deep.group.share import ALONE, Share

D = TypeVar("D")


class Exchange(Protocol):
    """What a training loop does so that the members of a group learn one network."""

    @property
    def share(self) -> Share:
        """The share of the own batches that this process computes."""

    @property
    def n_at_once(self) -> int:
        """The batches that the group learns from in one step."""

    @property
    def is_synced(self) -> bool:
        """Whether all members have the same state, after a step."""

    def own(self, drafts: Sequence[D]) -> D:
        """Return the batch that this process computes, of those of a step."""

    def start(self, epoch: int, step: int, loss_sum: torch.Tensor) -> None:
        """Begin an epoch at a step: the first one, or the one after a checkpoint.

        Args:
            epoch: From 0.
            step: The batches of the epoch before it.
            loss_sum: The sum of their losses, float64 ().
        """

    def after_gradients(self, loss: torch.Tensor) -> None:
        """Replace the gradients, and the loss of the batch, float (), by those of the group."""

    def after_step(self, epoch: int, step: int, loss_sum: torch.Tensor) -> None:
        """Replace the state by that of the group, if it is due; `loss_sum` is the sum of losses of the epoch."""

    def after_epoch(self, loss_sum: torch.Tensor) -> None:
        """Replace the state by that of the group."""


class NoExchange:
    """A process that trains alone."""

    share = ALONE
    n_at_once = 1
    is_synced = True

    def own(self, drafts: Sequence[D]) -> D:
        """Return the only batch of a step."""
        return drafts[0]

    def start(self, epoch: int, step: int, loss_sum: torch.Tensor) -> None:
        """Do nothing."""

    def after_gradients(self, loss: torch.Tensor) -> None:
        """Do nothing."""

    def after_step(self, epoch: int, step: int, loss_sum: torch.Tensor) -> None:
        """Do nothing."""

    def after_epoch(self, loss_sum: torch.Tensor) -> None:
        """Do nothing."""


def steps_of(drafts: Iterable[D], n_at_once: int) -> Iterator[list[D]]:
    """Yield the batches of an epoch by steps."""
    source = iter(drafts)
    while step := list(islice(source, n_at_once)):
        yield step
