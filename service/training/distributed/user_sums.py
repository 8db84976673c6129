"""The users of a training set as a fold-in sums them, by the workers of an executor."""

from typing import Final

import numpy as np

from service.executors.executor import executor_in_use
from service.models.fold_in.settings import FoldIn
from service.training.algorithms.kernels.sparse import row_parts
from service.training.algorithms.kernels.sparse.products import weighted_sums
from service.training.assembly import HistoryEntries
from service.training.entry_weights import UserSums
from service.training.entry_weights import user_sums as user_sums_of
from service.training.interactions import Float32

_STAGE: Final = "users"


def folded_in(entries: HistoryEntries, how: FoldIn, inputs: Float32) -> Float32:
    """Return what `entry_weights.folded_in` returns, to the last bit, with the executor in use if there is one.

    Args:
        inputs: Float32 (n_items, k), the factors of items as inputs.

    Returns:
        float32 (n_users, k).
    """
    executor = executor_in_use()
    sums = user_sums_of(entries, how)
    if executor is None:
        return weighted_sums(*sums, inputs)
    n_users = sums.indptr.size - 1
    users = np.empty((n_users, inputs.shape[1]), dtype=np.float32)
    ranges = row_parts.ranges(n_users, row_parts.part_rows(n_users))
    table = executor.put(inputs)
    parts = []
    for start, stop in ranges:
        first, last = sums.indptr[start], sums.indptr[stop]
        bounds = sums.indptr[start : stop + 1] - first
        parts.append(executor.put(UserSums(bounds, sums.items[first:last], sums.weights[first:last])))
    for task, rows in executor.completed(_summed, [(part, table) for part in parts], stage=_STAGE):
        start, stop = ranges[task]
        users[start:stop] = rows
    executor.release([table, *parts])
    return users


def _summed(part: UserSums, inputs: Float32) -> Float32:
    return weighted_sums(*part, inputs)
