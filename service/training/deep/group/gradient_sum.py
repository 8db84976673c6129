"""Gradients added at every step: the group learns as one process does.

Gradients travel in one message. Those of a large table, of which a batch concerns few rows, travel by these rows.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

import torch

from service.training.deep.group.group import Group
from service.training.deep.group.share import Share

D = TypeVar("D")
# A table of at least so many numbers is searched for rows without a gradient.
TABLE: Final = 1 << 20


class GradientSum:
    """The exchange of gradients, see `Exchange`.

    Args:
        group: The group.
        network: On its device.
    """

    n_at_once = 1
    is_synced = True

    def __init__(self, group: Group, network: torch.nn.Module) -> None:
        self._group: Final = group
        self._network: Final = network
        self._learnt: list[torch.nn.Parameter] | None = None

    @property
    def share(self) -> Share:
        """The rows of every batch that this member computes."""
        return self._group.share

    def own(self, drafts: Sequence[D]) -> D:
        """Return the only batch of a step, of which this member computes some rows."""
        return drafts[0]

    def start(self, epoch: int, step: int, loss_sum: torch.Tensor) -> None:
        """Do nothing: generators are alike in all members, and stay so."""

    def after_gradients(self, loss: torch.Tensor) -> None:
        """Add the gradients and the losses of all members."""
        parameters = self._learnt_by_any()
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        tables = [each for each in parameters if each.dim() == 2 and each.numel() >= TABLE]
        other = [loss, *(_gradient(each) for each in parameters if all(each is not table for table in tables))]
        add_together(self._group, other)
        for table in tables:
            add_by_rows(self._group, _gradient(table))

    def after_step(self, epoch: int, step: int, loss_sum: torch.Tensor) -> None:
        """Do nothing: equal steps on equal parameters give equal parameters."""

    def after_epoch(self, loss_sum: torch.Tensor) -> None:
        """Take the parameters of the first member, which differ if processors of several kinds round differently."""
        take_of_first(self._group, self._network)

    def _learnt_by_any(self) -> list[torch.nn.Parameter]:
        """Return the parameters that have a gradient in any member, which are the same at every step."""
        if self._learnt is None:
            parameters = list(self._network.parameters())
            is_learnt = torch.tensor([float(each.grad is not None) for each in parameters])
            self._group.add(is_learnt)
            self._learnt = [each for each, count in zip(parameters, is_learnt.tolist(), strict=True) if count]
        return self._learnt


def take_of_first(group: Group, network: torch.nn.Module) -> None:
    """Replace the parameters and buffers of a network by those of the first member."""
    for tensor in (*network.parameters(), *network.buffers()):
        group.of_first(tensor.detach())


def add_together(group: Group, tensors: Sequence[torch.Tensor]) -> None:
    """Replace tensors by their sums over all members, in one message for each type of numbers."""
    for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
        alike = [tensor for tensor in tensors if tensor.dtype == kind]
        message = torch.cat([tensor.reshape(-1) for tensor in alike])
        group.add(message)
        for tensor, part in zip(alike, message.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.copy_(part.view_as(tensor))


def add_by_rows(group: Group, table: torch.Tensor) -> None:
    """Replace a table, (n, d), by its sum over all members, which send the rows that are not 0, if that is less."""
    n, d = table.shape
    # A row is 0 if its largest and its least number are; comparing every number would copy the table.
    rows = ((table.amax(dim=1) != 0) | (table.amin(dim=1) != 0)).nonzero()[:, 0]
    counts = [int(count) for count in group.of_each(torch.tensor([rows.numel()]))]
    # A row's number is as long as two values; rows are received from every member.
    if len(counts) * max(counts) * (d + 2) >= n * d:
        group.add(table)
        return
    sent_rows = torch.zeros(max(counts), dtype=torch.int64)
    sent = torch.zeros((max(counts), d), dtype=table.dtype)
    sent_rows[: rows.numel()], sent[: rows.numel()] = rows, table[rows]
    table[rows] = 0
    received = zip(counts, group.of_each(sent_rows), group.of_each(sent), strict=True)
    for count, of_member, values in received:
        place = of_member[:count].to(table.device)
        table[place] += values[:count].to(table.device)


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    gradient = parameter.grad
    assert gradient is not None  # noqa: S101  # given by `after_gradients`
    return gradient
