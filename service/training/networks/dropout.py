"""Dropout that draws few random numbers.

On a processor, drawing a number for each value takes a quarter of a training step. So each epoch draws one long row of
factors, and each call takes a part of it from a random place on. On a GPU, drawing costs nothing, and each call draws.
"""

from typing import Final

import torch
from torch import nn

from service.training.deep.group.row_draws import dropout, rows_drawn_for

# 8 MiB; a call for more values draws for itself.
_KEPT: Final = 1 << 21


class Dropout(nn.Module):
    """Sets a share of values to 0 and scales the others, in training.

    Args:
        share: At least 0 and below 1.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self._factors: torch.Tensor | None = None

    def draw(self, generator: torch.Generator) -> None:
        """Draw the factors of an epoch."""
        if self.share and not torch.cuda.is_available():
            kept = torch.rand(_KEPT, generator=generator) >= self.share
            self._factors = kept.float().div_(1 - self.share)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Drop some of the values, of any shape."""
        if not self.training or not self.share:
            return values
        factors, rows = self._factors, rows_drawn_for()
        of_row = values[0].numel() if len(values) else 0
        n, before = (values.numel(), 0) if rows is None else (rows.n * of_row, rows.start * of_row)
        if factors is None or values.is_cuda or n > factors.numel():
            return dropout(values, self.share)
        start = int(torch.randint(factors.numel() - n + 1, (1,))) + before
        return values * factors[start : start + values.numel()].view(values.shape)
