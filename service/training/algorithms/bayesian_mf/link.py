"""The implicit part of Bayesian matrix factorisation: items that a user rated shift the mean of the user's factors.

A draw of beta is the solution of a perturbed linear system by conjugate gradients (Simm et al., "Macau: scalable
Bayesian factorization with high-dimensional side information using MCMC", 2017).
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from service.training.algorithms.bayesian_mf.draws import BLOCK_ROWS, PRIOR_ROWS, RowPrior, SideRatings
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.interactions import Float32

# Enough, because a draw starts from the previous one: twice as many improve no prediction.
_N_STEPS: Final = 5


class ImplicitLink:
    """Shift of the users' prior means by the items they rated: shifts = F beta, F[u, i] = |N(u)|^-1/2 for i in N(u).

    Args:
        width: Columns of beta and of the shifts.
    """

    def __init__(self, users: SideRatings, items: SideRatings, width: int) -> None:
        self._users, self._items = users, items
        counts = np.diff(users.indptr)
        self._scales = (1 / np.sqrt(np.maximum(counts, 1))).astype(np.float32)
        self._ones = np.ones(items.indptr.size - 1, np.float32)
        self._beta = np.zeros((items.indptr.size - 1, width), np.float32)
        self._precision = 1.0
        self.shifts = np.zeros((counts.size, width), np.float32)

    def draw(self, user_table: Float32, prior: RowPrior, rng: np.random.Generator) -> None:
        """Draw beta given the users' rows, by solving (F'F + l) beta = F'(rows - mean + noise) + sqrt(l) noise."""
        spread = np.linalg.cholesky(np.linalg.inv(prior.precision)).T.astype(np.float32)
        noisy = rng.standard_normal(user_table.shape, dtype=np.float32) @ spread
        noisy += user_table
        noisy -= prior.mean.astype(np.float32)
        right = self._transposed(noisy)
        right += np.float32(np.sqrt(self._precision)) * (
            rng.standard_normal(self._beta.shape, dtype=np.float32) @ spread
        )
        solve_by_conjugate_gradients(lambda x: self.apply(x, self._precision), right, self._beta, _N_STEPS)
        self.shifts = self._times(self._beta)
        whitened = self._beta @ np.linalg.cholesky(prior.precision).astype(np.float32)
        size = float(np.einsum("ij,ij->", whitened, whitened, dtype=np.float64))
        self._precision = rng.gamma((PRIOR_ROWS + self._beta.size) / 2) / ((PRIOR_ROWS + size) / 2)

    def apply(self, table: Float32, precision: float) -> Float32:
        """Return (F'F + precision) table: float32 (n_items, w)."""
        return self._transposed(self._times(table)) + np.float32(precision) * table

    def _times(self, table: Float32) -> Float32:
        """Return F table: float32 (n_users, w)."""
        return _scaled_sums(self._users, self._scales, self._ones, table)

    def _transposed(self, table: Float32) -> Float32:
        """Return F' table: float32 (n_items, w)."""
        return _scaled_sums(self._items, self._ones, self._scales, table)


def solve_by_conjugate_gradients(
    apply: Callable[[Float32], Float32], right: Float32, solution: Float32, n_steps: int
) -> None:
    """Improve `solution`, float32 (n, w), of apply(solution) = right, each column by itself."""
    residual = right - apply(solution)
    direction = residual.copy()
    size = np.einsum("ij,ij->j", residual, residual, dtype=np.float64)
    for _ in range(n_steps):
        applied = apply(direction)
        along = np.einsum("ij,ij->j", direction, applied, dtype=np.float64)
        step = np.divide(size, along, out=np.zeros_like(size), where=along > 0).astype(np.float32)
        solution += step * direction
        residual -= step * applied
        before, size = size, np.einsum("ij,ij->j", residual, residual, dtype=np.float64)
        direction *= np.divide(size, before, out=np.zeros_like(size), where=before > 0).astype(np.float32)
        direction += residual


def _scaled_sums(side: SideRatings, own: Float32, others: Float32, table: Float32) -> Float32:
    """Sum scaled rows of the other side's table for each row: float32 (n_rows, w)."""
    sums = np.empty((own.size, table.shape[1]), np.float32)

    def rows(start: int, stop: int) -> None:
        _sum_rows(start, stop, side, own, others, table, sums)

    threads.run_in_blocks(rows, own.size, BLOCK_ROWS)
    return sums


@compiled
def _sum_rows(
    start: int, stop: int, side: SideRatings, own: Float32, scales: Float32, table: Float32, sums: Float32
) -> None:  # pragma: no cover  # compiled; tests/reference/bayesian_mf.py
    """Write own[row] times the sum of scales[other] table[other] for rows start to stop."""
    width = table.shape[1]
    for row in range(start, stop):
        sums[row] = 0
        for n in range(side.indptr[row], side.indptr[row + 1]):
            other = side.others[n]
            scale = scales[other]
            for f in range(width):
                sums[row, f] += scale * table[other, f]
        for f in range(width):
            sums[row, f] *= own[row]
