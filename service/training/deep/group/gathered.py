"""The rows of a batch that other members of the group have computed, beside the own ones, with their gradients."""

from typing import Any

import torch

from service.training.deep.group.group import Group, group_in_use
from service.training.deep.group.share import Rows


def gathered(own: torch.Tensor, rows: Rows | None) -> torch.Tensor:
    """Return all rows of a batch, (n, k), given the own ones, which each member computes.

    The gradient of the own ones is the sum of those that all members have for them.

    Args:
        own: Float (rows.size, k).
        rows: Which these are; None for all.
    """
    group = group_in_use()
    if group is None or rows is None or rows.are_all:
        return own
    whole: torch.Tensor = _Gathered.apply(own, rows, group)
    return whole


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, own: torch.Tensor, rows: Rows, group: Group) -> torch.Tensor:
        context.rows, context.group = rows, group
        whole = own.new_zeros((rows.n, *own.shape[1:]))
        whole[rows.places] = own
        group.add(whole)
        return whole

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        total = gradient.contiguous().clone()
        context.group.add(total)
        return total[context.rows.places], None, None
