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
from service.training.algorithms.kernels.factors.svd_steps import visit_ratings
from service.training.algorithms.kernels.factors.training import FactorTables
from service.training.algorithms.kernels.factors.visit_order import KeyGroups, VisitedRatings, Visits, group_by_key
from service.training.interactions import Float32, Int32

_STAGE: Final = "svd: blocks of ratings"


class _Steps(NamedTuple):
    """What all steps share, as `kernels.factors.svd_steps` takes it."""

    mean: np.float32
    rates: Float32
    biased: bool


class _Side(NamedTuple):
    """A group of users or one of items.

    Attributes:
        factors: Float32 (n, w).
        bias: Float32 (n,).
        squared_error: Of users, the sum of the squared errors of their visits in this epoch.
    """

    factors: Float32
    bias: Float32
    squared_error: float = 0.0


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
        all_users = _Side(self._tables.user_factors, self._tables.user_bias)
        all_items = _Side(self._tables.item_factors, self._tables.item_bias)
        users: list[Ref[_Side]] = [executor.put(_taken(all_users, group.users)) for group in self._groups]
        items: list[Ref[_Side]] = [executor.put(_taken(all_items, group.items)) for group in self._groups]
        for number, blocks in enumerate(self._rounds):
            tasks = [(block, self._steps, users[b], items[(b + number) % n]) for b, block in enumerate(blocks)]
            visited = executor.run_split(_visit_block, tasks, 2, stage=_STAGE)
            executor.release([*users, *items])
            for b, parts in enumerate(visited):
                users[b], items[(b + number) % n] = parts
        squared_error = 0.0
        for group, user_side, item_side in zip(self._groups, users, items, strict=True):
            learnt = executor.get(user_side)
            squared_error += learnt.squared_error
            _put_back(all_users, group.users, learnt)
            _put_back(all_items, group.items, executor.get(item_side))
        executor.release([*users, *items])
        return squared_error

    def release(self) -> None:
        """Give up the ratings that the workers have."""
        self._executor.release([block for blocks in self._rounds for block in blocks])


def _visit_block(ratings: VisitedRatings, steps: _Steps, users: _Side, items: _Side) -> tuple[_Side, _Side]:
    """Visit the ratings of a block; return its users and its items afterwards."""
    tables = FactorTables(users.factors.copy(), items.factors.copy(), users.bias.copy(), items.bias.copy())
    squared_error = users.squared_error + visit_ratings(0, ratings.values.size, ratings, tables, *steps)
    return (
        _Side(tables.user_factors, tables.user_bias, squared_error),
        _Side(tables.item_factors, tables.item_bias),
    )


def _taken(side: _Side, rows: NDArray[np.integer[Any]]) -> _Side:
    return _Side(side.factors[rows], side.bias[rows])


def _put_back(side: _Side, rows: NDArray[np.integer[Any]], learnt: _Side) -> None:
    side.factors[rows] = learnt.factors
    side.bias[rows] = learnt.bias


def _places(groups: KeyGroups) -> Int32:
    """Return the place of each row within its group, int32 (n_rows,)."""
    places = np.empty(groups.order.size, np.int32)
    places[groups.order] = np.arange(groups.order.size) - np.repeat(groups.starts[:-1], np.diff(groups.starts))
    return places
