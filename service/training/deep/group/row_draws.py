"""Random numbers for some rows of a batch: those that one process would draw for these rows of the whole batch.

Invariant: every process of a group draws the same numbers from PyTorch's generator, those of all rows, and uses its
own. So generators stay alike, and a group learns from the numbers that one process learns from. Without a group, the
numbers are those that PyTorch's own functions draw.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn

from service.training.deep.group.share import Rows

_rows: ContextVar[Rows | None] = ContextVar("recollect_rows_drawn_for", default=None)


@contextmanager
def drawing_for(rows: Rows | None) -> Iterator[None]:
    """Draw for these rows inside; None for a whole batch."""
    token = _rows.set(None if rows is None or rows.are_all else rows)
    try:
        yield
    finally:
        _rows.reset(token)


def rows_drawn_for() -> Rows | None:
    """Return the rows for which numbers are drawn; None for a whole batch."""
    return _rows.get()


def uniform(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Return evenly drawn numbers from 0 to below 1, float32, with a row for each row of the batch."""
    rows = _rows.get()
    if rows is None:
        return torch.rand(shape, device=device)
    return torch.rand((rows.n, *shape[1:]), device=device)[rows.places]


def dropout(values: torch.Tensor, share: float) -> torch.Tensor:
    """Set a share of the values, with a row for each row of the batch, to 0, and scale the others."""
    rows = _rows.get()
    if rows is None:
        return nn.functional.dropout(values, share)
    factors = torch.ones((rows.n, *values.shape[1:]), dtype=values.dtype, device=values.device)
    return values * nn.functional.dropout(factors, share)[rows.places]


def choices(shares: torch.Tensor, n: int) -> torch.Tensor:
    """Draw n places for each row, perhaps repeatedly, by their shares: float32 (b, q), which sum to 1; int64 (b, n)."""
    rows = _rows.get()
    if rows is None:
        return torch.multinomial(shares, n, replacement=True)
    # What `multinomial` does on a processor, with one number for each choice, row after row.
    drawn = torch.rand((rows.n, n), dtype=torch.float64, device=shares.device)[rows.places]
    sums = shares.cumsum(dim=1)
    sums = (sums / sums[:, -1:]).to(torch.float64)
    return torch.searchsorted(sums, drawn.contiguous()).clamp_max(shares.shape[1] - 1)


class RowDropout(nn.Module):
    """Dropout in a network over rows of a batch.

    Args:
        share: At least 0 and below 1.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Drop some of the values in training."""
        return dropout(values, self.share) if self.training else values
