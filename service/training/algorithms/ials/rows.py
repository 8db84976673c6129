"""The interactions of implicit ALS, grouped by the rows of one side, and the solution of these rows."""

from typing import Final, NamedTuple, Protocol

import numpy as np
from scipy.sparse import csr_array

from service.models.fold_in.implicit_ridge import confidences
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.sparse.ridge import solve_rows
from service.training.algorithms.kernels.sparse.rows import SparseRows, sparse_rows
from service.training.assembly import HistoryEntries
from service.training.interactions import Float32, Float64

_SOLVED_ROWS: Final = 256  # rows solved per block of a thread


class SolvableRows(Protocol):
    """The rows of one side, wherever they are solved."""

    def solve(self, fixed: Float32, spectrum: Float64, solved: Float32, block_size: int) -> None:
        """Solve all rows of one table given the other, as `kernels.sparse.ridge` does.

        Args:
            fixed: Float32 (n_others, k).
            spectrum: Float64 (k,), the diagonal Gramian of the fixed table times the weight of every pair.
            solved: Float32 (n_rows, k), solved in place; rows without interactions keep their values.
            block_size: Factors solved at once, at most k; below k, a row starts from its previous values.
        """


class RowInteractions(NamedTuple):
    """Interactions grouped by the rows of one side, users or items.

    Attributes:
        pairs: Rows of the other side; the values are square roots of confidences, negative for dislikes.
        penalties: Float64 (n_rows,), regularisation on the diagonal of each row.
    """

    pairs: SparseRows
    penalties: Float64

    def solve(self, fixed: Float32, spectrum: Float64, solved: Float32, block_size: int) -> None:
        """Solve them on the threads of this process; as in `SolvableRows`."""

        def solve(start: int, stop: int) -> None:
            solve_rows(start, stop, self.pairs, fixed, spectrum, self.penalties, solved, block_size)

        threads.run_in_blocks(solve, solved.shape[0], _SOLVED_ROWS)

    def between(self, start: int, stop: int) -> "RowInteractions":
        """Return rows start to stop, without a copy of their pairs."""
        indptr = self.pairs.indptr[start : stop + 1]
        own = slice(indptr[0], indptr[-1])
        pairs = SparseRows(indptr - indptr[0], self.pairs.indices[own], self.pairs.values[own])
        return RowInteractions(pairs, self.penalties[start:stop])


class Confidences(NamedTuple):
    """The confidences of interactions, and what is equal in all half epochs.

    Attributes:
        by_user: Float32 CSR (n_users, n_items), square roots of confidences, negative for dislikes, without zeros.
        of_users: Float64 (n_users,), the sum of the absolute weights of each.
        of_items: Float64 (n_items,), likewise.
        pair_weight: The weight of every pair.
    """

    by_user: csr_array
    of_users: Float64
    of_items: Float64
    pair_weight: float

    @classmethod
    def of(cls, entries: HistoryEntries, weights: Float64, pair_weight: float, mean_rating: float) -> "Confidences":
        """Build them from the weight of each interaction, float64 (n,).

        Args:
            mean_rating: The unit of ratings as confidences; 0 if they are none.
        """
        ratings = entries.history
        values = confidences(weights, ratings.data, mean_rating) if mean_rating else weights
        scales = (np.sign(values) * np.sqrt(np.abs(values))).astype(np.float32)
        by_user = csr_array((scales, ratings.indices.copy(), ratings.indptr.copy()), shape=ratings.shape)
        by_user.eliminate_zeros()
        n_users, n_items = ratings.shape
        user_rows = np.repeat(np.arange(n_users), np.diff(ratings.indptr))
        of_users, of_items = (
            np.bincount(rows, weights=np.abs(weights), minlength=n).astype(np.float64, copy=False)
            for rows, n in ((user_rows, n_users), (ratings.indices, n_items))
        )
        return cls(by_user, of_users, of_items, pair_weight)

    def user_side(self, reg: float, reg_exp: float) -> RowInteractions:
        """Group the interactions by user."""
        n_pairs = self.pair_weight * self.of_items.size
        return RowInteractions(sparse_rows(self.by_user), reg * (self.of_users + n_pairs) ** reg_exp)

    def item_side(self, reg: float, reg_exp: float) -> RowInteractions:
        """Group the interactions by item."""
        by_item = self.by_user.T.tocsr()
        by_item.sort_indices()
        n_pairs = self.pair_weight * self.of_users.size
        return RowInteractions(sparse_rows(by_item), reg * (self.of_items + n_pairs) ** reg_exp)
