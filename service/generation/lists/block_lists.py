"""The lists of many users of a model with factors: matrix products choose the candidates, and exact scores decide.

Invariant: a list has the rows and the bits of `service.models.ranking.scoring.personal`, whatever the blocks and
threads, but that every item is scored also where the model has an item index.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.generation.lists.item_table import ItemTable
from service.generation.lists.selection import NO_COLUMN, Buffers, add_tile, score_best
from service.models.fold_in.representation import UserRepresentation
from service.models.snapshot import Float32, ModelSnapshot
from service.training.algorithms.kernels.threads import one_blas_thread, run_in_blocks

# A tile of float32 scores of 1 MB fits the second-level cache of a core.
_BLOCK_USERS: Final = 256
_TILE_ITEMS: Final = 1024
# Candidates beyond the length of a list, and their growth when a list cannot be proven complete.
_MARGIN: Final = 16
_GROWTH: Final = 4
# Of a block that is ranked again: the buffers then take 32 MB.
_MOST_CANDIDATES: Final = 1 << 21


class BlockUsers(NamedTuple):
    """Users as a model with factors scores them.

    Attributes:
        factors: Float32 (b, k).
        constants: Float64 (b,), the constant part of each user's scores.
        excess: Float64 (b,), the largest excess of an exact score over an approximate one, constants included.
        seen_indptr: Int64 (b + 1,), where the seen items of each user begin in `seen`.
        seen: Int32, item rows, unique for each user.
    """

    factors: Float32
    constants: NDArray[np.float64]
    excess: NDArray[np.float64]
    seen_indptr: NDArray[np.int64]
    seen: NDArray[np.int32]

    @classmethod
    def trained(cls, snapshot: ModelSnapshot) -> "BlockUsers":
        """Return all users of a model as trained."""
        return cls(
            np.ascontiguousarray(snapshot.user_factors),
            snapshot.user_constants,
            snapshot.max_exact_over_approx,
            snapshot.history.indptr.astype(np.int64),
            snapshot.history.indices,
        )

    def replaced(self, snapshot: ModelSnapshot, by: dict[int, UserRepresentation]) -> "BlockUsers":
        """Return the users with other representations of some, by place."""
        if not by:
            return self
        factors, constants, excess = self.factors.copy(), self.constants.copy(), self.excess.copy()
        for place, user in by.items():
            factors[place], constants[place] = user.factors, user.constant
            excess[place] = snapshot.max_exact_over_approx_of(user)
        seen = [
            by[place].seen if place in by else self.seen[self.seen_indptr[place] : self.seen_indptr[place + 1]]
            for place in range(self.n_users)
        ]
        return BlockUsers(factors, constants, excess, *_joined(seen))

    def with_stand_in(self) -> "BlockUsers":
        """Return the users with another one behind them who has no factors and has seen nothing."""
        return BlockUsers(
            np.concatenate([self.factors, np.zeros((1, self.factors.shape[1]), np.float32)]),
            np.append(self.constants, 0.0),
            np.append(self.excess, 0.0),
            np.append(self.seen_indptr, self.seen_indptr[-1]),
            self.seen,
        )

    def take(self, places: NDArray[np.int64]) -> "BlockUsers":
        """Return some of the users, int64 (m,)."""
        starts = self.seen_indptr[places]
        counts = self.seen_indptr[places + 1] - starts
        indptr = np.zeros(places.size + 1, np.int64)
        np.cumsum(counts, out=indptr[1:])
        entries = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], counts)
        return BlockUsers(self.factors[places], self.constants[places], self.excess[places], indptr, self.seen[entries])

    @property
    def n_users(self) -> int:
        """The number of users."""
        return self.constants.size


class BlockLists(NamedTuple):
    """Lists of users, best first.

    Attributes:
        columns: Int32 (b, n), columns of the item table; `NO_COLUMN` (-1) at the end of a shorter list.
        scores: Float64 (b, n), exact; NaN at the end of a shorter list.
        counts: Int64 (b,), the length of each list.
    """

    columns: NDArray[np.int32]
    scores: NDArray[np.float64]
    counts: NDArray[np.int64]


def best_items(items: ItemTable, users: BlockUsers, n: int) -> BlockLists:
    """Return the n best unseen items of each user, fewer if there are no more."""
    n_users = users.n_users
    n = min(n, items.rows.size)
    lists = BlockLists(
        np.empty((n_users, n), np.int32), np.empty((n_users, n), np.float64), np.zeros(n_users, np.int64)
    )
    if not n:
        return lists
    is_complete = np.empty(n_users, np.bool_)

    def rank(start: int, stop: int) -> None:
        part = slice(start, stop)
        indptr = users.seen_indptr[start : stop + 1]
        block = BlockUsers(users.factors[part], users.constants[part], users.excess[part], indptr, users.seen)
        block = _seen_columns(block, items.column_of_row)
        out = BlockLists(lists.columns[part], lists.scores[part], lists.counts[part])
        _rank(items, block, n + _MARGIN, out, is_complete[part])
        size = n + _MARGIN
        while not is_complete[part].all():
            # Many equal scores, or scores as near to each other as the rounding of float32.
            size = min(size * _GROWTH, items.rows.size)
            left = np.flatnonzero(~is_complete[part])
            for places in np.array_split(left, -(-left.size * size // _MOST_CANDIDATES)):
                again = BlockLists(out.columns[places], out.scores[places], out.counts[places])
                complete = np.empty(places.size, np.bool_)
                _rank(items, block.take(places), size, again, complete)
                out.columns[places], out.scores[places], out.counts[places] = again
                is_complete[start + places] = complete

    with one_blas_thread():
        run_in_blocks(rank, n_users, _BLOCK_USERS)
    return lists


def _rank(items: ItemTable, users: BlockUsers, size: int, lists: BlockLists, is_complete: NDArray[np.bool_]) -> None:
    """Write the lists of a block of users, whose `seen` are columns, from `size` candidates each.

    A list is complete if no item outside its candidates can belong to it.
    """
    n_users, n_items, n = users.n_users, items.rows.size, lists.columns.shape[1]
    buffers = Buffers.empty(n_users, size, users.seen_indptr)
    approximate = np.empty(n_users * min(_TILE_ITEMS, n_items), np.float32)
    for first in range(0, n_items, _TILE_ITEMS):
        some = slice(first, min(first + _TILE_ITEMS, n_items))
        tile = approximate[: n_users * (some.stop - first)].reshape(n_users, -1)
        np.matmul(users.factors, items.factors[some].T, out=tile)
        add_tile(buffers, size, tile, first, items.bias[some], users.seen_indptr, users.seen)
    exact = np.empty((n_users, size))
    score_best(buffers, size, users.factors, users.constants, items.factors, items.bias, exact)
    # Stable, and the candidates are in the order of columns.
    order = np.argsort(-exact, axis=1, kind="stable")[:, :n]
    lists.scores[:], lists.columns[:] = _taken(exact, order), _taken(buffers.columns, order)
    lists.counts[:] = np.minimum(buffers.counts, n)
    is_behind = np.arange(n) >= lists.counts[:, np.newaxis]
    lists.columns[is_behind], lists.scores[is_behind] = NO_COLUMN, np.nan
    is_complete[:] = _is_complete(users, buffers, lists)


def _is_complete(users: BlockUsers, buffers: Buffers, lists: BlockLists) -> NDArray[np.bool_]:
    """Return whether no item that was left out, with at most the approximate score `thresholds`, belongs to a list."""
    cutoffs, last = buffers.thresholds, lists.scores[:, -1]
    exceeds = last > cutoffs.astype(np.float64) + users.excess
    # Without products the approximate scores are the biases, and exact ones have their order but where the sum with the
    # constant rounds two of them to one number. Items left out with the bias of the cutoff have larger columns.
    at, above, below = (
        bias.astype(np.float64) + users.constants
        for bias in (cutoffs, np.nextafter(cutoffs, np.float32(np.inf)), np.nextafter(cutoffs, np.float32(-np.inf)))
    )
    in_order = ~users.factors.any(axis=1) & ((last > at) | ((above > at) & (below < last)))
    found: NDArray[np.bool_] = np.isneginf(cutoffs) | exceeds | in_order
    return found


def _taken(table: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """Return the entries of each row at some places of it."""
    found: NDArray[Any] = np.take_along_axis(table, places, axis=1)
    return found


def _seen_columns(users: BlockUsers, column_of_row: NDArray[np.int32]) -> BlockUsers:
    """Return users whose seen items are columns, ascending for each of them, without items that have none."""
    counts = np.diff(users.seen_indptr)
    columns = column_of_row[users.seen[users.seen_indptr[0] : users.seen_indptr[-1]]]
    has_column = columns != NO_COLUMN
    of_user = np.repeat(np.arange(users.n_users), counts)[has_column]
    keys = of_user * np.int64(column_of_row.size) + columns[has_column]
    keys.sort()
    indptr = np.zeros(users.n_users + 1, np.int64)
    np.cumsum(np.bincount(of_user, minlength=users.n_users), out=indptr[1:])
    return users._replace(seen_indptr=indptr, seen=(keys % max(1, column_of_row.size)).astype(np.int32))


def _joined(seen: list[NDArray[np.int32]]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return where the seen items of each user begin, and all of them."""
    indptr = np.zeros(len(seen) + 1, np.int64)
    np.cumsum([rows.size for rows in seen], out=indptr[1:])
    return indptr, np.concatenate(seen).astype(np.int32, copy=False) if seen else np.empty(0, np.int32)
