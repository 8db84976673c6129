"""The statistics of `next_item` in the basis of a table, by the workers of an executor.

A task sums over one part of the users, from their sequences and the table of the items that all tasks read. It returns
a Gramian and a table of the items, which are added here.

Invariant: the statistics are those of `kernels.next_item.decayed_tables.table_statistics`, to the last bit: parts
depend on the number of users alone, and are added in their order.
"""

from typing import Final

from service.executors.executor import executor_in_use
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.next_item.decayed_pairs import PairWeights
from service.training.algorithms.kernels.next_item.decayed_tables import (
    TableStatistics,
    add_to,
    part_statistics,
    part_users,
    table_statistics,
)
from service.training.algorithms.kernels.next_item.item_sequences import Sequences, of_users
from service.training.algorithms.kernels.sparse import row_parts
from service.training.interactions import Float32

_STAGE: Final = "next_item: statistics"


def statistics_in_basis(data: Sequences, how: PairWeights, table: Float32) -> TableStatistics:
    """Return the statistics in the basis of a table, float32 (n_items, b), with the executor in use if there is one."""
    executor = executor_in_use()
    if executor is None:
        return table_statistics(data, how, table)
    n_users = data.starts.size - 1
    shared = executor.put(table)
    parts = [executor.put(of_users(data, *bounds)) for bounds in row_parts.ranges(n_users, part_users(n_users))]
    found = executor.run(_of_part, [(part, how, shared) for part in parts], stage=_STAGE)
    executor.release([shared, *parts])
    # The first sum is that of nothing and the first part, as in one process.
    first = executor.get(found[0])
    total = TableStatistics(first.gram + 0, first.cross + 0)
    for ref in found[1:]:
        add_to(total, executor.get(ref))
    executor.release(found)
    return total


def _of_part(data: Sequences, how: PairWeights, table: Float32) -> TableStatistics:
    with threads.one_blas_thread():
        return part_statistics(data, how, table, 0, data.starts.size - 1)
