"""Epochs of SVD by workers: the blocks of a round share no user and no item, so each is a task.

R. Gemulla, E. Nijkamp, P. J. Haas and Y. Sismanis, "Large-scale matrix factorization with distributed stochastic
gradient descent", KDD 2011: a block of ratings stays as it is, and the factors of its users and items go from the task
of one round to that of the next. After each epoch the process of the fit has all of them, so that what a lost machine
held is computed again from there.

Invariant: the tables are those of one process, to the bit: a block's ratings are visited in the same order, with the
same factors. Blocks depend on the data and the generator alone.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.executors.executor import Executor, Ref, executor_in_use
from service.training.algorithms.kernels.factor_training import FactorTables
from service.training.algorithms.kernels.svd_steps import visit_ratings
from service.training.algorithms.kernels.visit_order import KeyGroups, VisitedRatings, Visits, group_by_key
from service.training.interactions import Float32, Int32

_STAGE: Final = "svd: blocks of ratings"


class _Steps(NamedTuple):
    """What all steps share, as `kernels.svd_steps` takes it."""

    mean: np.float32
    rates: Float32
    biased: bool


class _Visited(NamedTuple):
    """A group of users and one of items after some visits, and the squared errors of the group of users so far."""

    tables: FactorTables
    squared_error: float


class _Group(NamedTuple):
    """The rows of the users, int (n,), and of the items, int (m,), of groups of the same number; ascending."""

    users: NDArray[np.integer[Any]]
    items: NDArray[np.integer[Any]]


@contextmanager
def epoch_in_use(
    visits: Visits, tables: FactorTables, mean: np.float32, rates: Float32, *, biased: bool
) -> Iterator[Callable[[], float]]:
    """Yield a function that runs an epoch on the tables, and returns the sum of the squared errors before each step.

    It runs on the workers of the executor in use, unless there is none or all ratings are one block.

    Args:
        rates: Float32 (8,), learning rates and regularisation, see `learning_rates`.
    """
    executor = executor_in_use()
    steps = _Steps(mean, rates, biased)
    if executor is None or visits.bounds.shape[0] == 1:

        def visit(start: int, stop: int) -> float:
            return visit_ratings(start, stop, visits.ratings, tables, *steps)

        yield lambda: visits.epoch(visit)
        return
    distributed = _DistributedVisits(executor, visits, tables, steps)
    try:
        yield distributed.epoch
    finally:
        distributed.release()


class _DistributedVisits:
    """A grid of blocks, whose ratings the workers have."""

    def __init__(self, executor: Executor, visits: Visits, tables: FactorTables, steps: _Steps) -> None:
        self._executor = executor
        self._tables = tables
        self._steps = steps
        self._n_groups = n = visits.bounds.shape[0]
        users, items, values = visits.ratings
        user_group, item_group = (np.zeros(len(bias), np.int32) for bias in (tables.user_bias, tables.item_bias))
        for number, bounds in enumerate(visits.bounds.tolist()):
            for b, ends in enumerate(itertools.pairwise(bounds)):
                user_group[users[slice(*ends)]] = b
                item_group[items[slice(*ends)]] = (b + number) % n
        by_user, by_item = (group_by_key(groups, n) for groups in (user_group, item_group))
        self._groups = [
            _Group(*(each.order[each.starts[group] : each.starts[group + 1]] for each in (by_user, by_item)))
            for group in range(n)
        ]
        user_places, item_places = _places(by_user), _places(by_item)
        self._rounds: list[list[Ref[VisitedRatings]]] = []
        for bounds in visits.bounds.tolist():
            blocks = [slice(*ends) for ends in itertools.pairwise(bounds)]
            self._rounds.append(
                [
                    executor.put(VisitedRatings(user_places[users[own]], item_places[items[own]], values[own]))
                    for own in blocks
                ]
            )

    def epoch(self) -> float:
        """Run an epoch on the tables; return the sum of the squared errors before each step."""
        executor, n = self._executor, self._n_groups
        visited = [executor.put(_Visited(self._taken(group), 0.0)) for group in self._groups]
        for number, blocks in enumerate(self._rounds):
            # Users b are where they were; their next items were with the next users.
            tasks = [
                (block, self._steps, visited[b], visited[(b + 1) % n if number else b])
                for b, block in enumerate(blocks)
            ]
            before, visited = visited, executor.run(_visit_block, tasks, stage=_STAGE)
            executor.release(before)
        squared_error = 0.0
        for b, ref in enumerate(visited):
            learnt = executor.get(ref)
            group = _Group(self._groups[b].users, self._groups[(b + n - 1) % n].items)
            for table, rows, values in zip(self._tables, _rows(group), learnt.tables, strict=True):
                table[rows] = values
            squared_error += learnt.squared_error
        executor.release(visited)
        return squared_error

    def release(self) -> None:
        """Give up the ratings that the workers have."""
        self._executor.release([block for blocks in self._rounds for block in blocks])

    def _taken(self, group: _Group) -> FactorTables:
        return FactorTables(*(table[rows] for table, rows in zip(self._tables, _rows(group), strict=True)))


def _visit_block(ratings: VisitedRatings, steps: _Steps, users: _Visited, items: _Visited) -> _Visited:
    """Visit the ratings of a block, with the users of one group and the items of another."""
    tables = FactorTables(
        users.tables.user_factors.copy(),
        items.tables.item_factors.copy(),
        users.tables.user_bias.copy(),
        items.tables.item_bias.copy(),
    )
    squared_error = visit_ratings(0, ratings.values.size, ratings, tables, *steps)
    return _Visited(tables, users.squared_error + squared_error)


def _rows(group: _Group) -> tuple[NDArray[np.integer[Any]], ...]:
    """Return the rows of a group in each of `FactorTables`."""
    return group.users, group.items, group.users, group.items


def _places(groups: KeyGroups) -> Int32:
    """Return the place of each row within its group, int32 (n_rows,)."""
    places = np.empty(groups.order.size, np.int32)
    places[groups.order] = np.arange(groups.order.size) - np.repeat(groups.starts[:-1], np.diff(groups.starts))
    return places
