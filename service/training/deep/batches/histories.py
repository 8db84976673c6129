"""Histories of many users as the input of a user tower, for `torch.nn.functional.embedding_bag`.

What `HistoryInputs.of` computes for one user, up to the order of sums: the signals are weights of sums over embeddings,
and the figures do not depend on them.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from service.models.networks.history_inputs import LOG_UNIT, MEAN_COUNT, HistoryInputs
from service.training.deep.group.share import Rows
from service.training.interactions import Float32, Float64, Int64


class HistoryBatch(NamedTuple):
    """The histories of b users, one after the other, with n interactions in all.

    Attributes:
        items: Int64 (n,), item rows, oldest first.
        offsets: Int64 (b,), where each user begins.
        signals: Float32 (s, n), the weight of each interaction in each sum.
        figures: Float32 (b, f), what does not depend on embeddings.
        attributes: Int64 (b, c), a category for each column of users.
        rows: Which users of a batch that processes share these are; None for all.
    """

    items: torch.Tensor
    offsets: torch.Tensor
    signals: torch.Tensor
    figures: torch.Tensor
    attributes: torch.Tensor
    rows: Rows | None = None


def history_batch(
    inputs: HistoryInputs,
    items: NDArray[np.integer],
    sizes: Int64,
    weights: Float64,
    residuals: Float32 | None,
    attributes: NDArray[np.integer],
    rows: Rows | None = None,
) -> HistoryBatch:
    """Build a batch.

    Args:
        inputs: How histories become numbers.
        items: Int (n,), the items of all users, each user's oldest first and within the window.
        sizes: Int64 (b,), the number of items of each user.
        weights: Float64 (n,), what each interaction weighs without recency.
        residuals: Float32 (n,), ratings above the items' means; None if ratings are not read.
        attributes: Int (b, c), a category for each column of users.
        rows: Which users of a batch that processes share these are; None for all.
    """
    stops = np.cumsum(sizes)
    offsets = stops - sizes
    later = np.repeat(stops, sizes) - 1 - np.arange(items.size)
    n_sums = len(inputs.half_lives)
    signals = np.empty((n_sums + (residuals is not None), items.size), dtype=np.float32)
    np.multiply(inputs.decays[:, inputs.window - 1 - later], weights, out=signals[:n_sums], casting="same_kind")
    signals[:n_sums] *= np.repeat(inputs.scales(sums_of(np.abs(signals[:n_sums]), offsets, sizes)), sizes, axis=1)
    figures = np.empty((sizes.size, 1 if residuals is None else 3), dtype=np.float32)
    if residuals is not None:
        np.multiply(residuals, np.repeat(inputs.scales(sizes.astype(np.float32)), sizes), out=signals[n_sums])
        divisors = sizes + MEAN_COUNT
        figures[:, 0] = sums_of(residuals[np.newaxis], offsets, sizes)[0] / divisors
        figures[:, 1] = sums_of(np.square(residuals)[np.newaxis], offsets, sizes)[0] / divisors
    figures[:, -1] = np.log1p(sizes) / LOG_UNIT
    return HistoryBatch(
        torch.from_numpy(items.astype(np.int64)),
        torch.from_numpy(offsets),
        torch.from_numpy(signals),
        torch.from_numpy(figures),
        torch.from_numpy(attributes.astype(np.int64)),
        rows,
    )


def sums_of(values: Float32, offsets: Int64, sizes: Int64) -> Float32:
    """Return the sums of the values of each user, float32 (s, b), given float32 (s, n); 0 for a user without any."""
    sums = np.zeros((len(values), sizes.size), dtype=np.float32)
    if values.size:
        sums[:, sizes > 0] = np.add.reduceat(values, offsets[sizes > 0], axis=1)
    return sums
