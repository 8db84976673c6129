"""Small ridge regressions, the inner loop of alternating least squares.

For a row that interacts with rows x_j of a table, with scales s_j, the factors w are the

    argmin  sum over j of s_j^2 (sign s_j - x_j . w)^2  +  sum over f of (spectrum_f + penalty) w_f^2

With x_j scaled by s_j and factor f by 1 / sqrt(spectrum_f + penalty), this is a ridge regression of penalty 1, whose
matrix is the identity plus a Gramian. A row with few interactions is solved in the space of interactions (Woodbury's
identity). A row with many is improved by one sweep of Newton steps over blocks of factors (Rendle, Krichene, Zhang and
Koren, "iALS++: Speeding up matrix factorization with subspace optimization", 2021), which is exact if one block holds
all factors. An interaction costs at most about k * block_size multiplications.

Invariants: a solved row depends on its interactions, the table and, in a sweep, its previous value, not on other rows.
Pivots are bounded below by 1, their limit without rounding, so that no division is by zero.
"""

from typing import Final, NamedTuple

import numpy as np

# numba calls BLAS through it. It must be loaded before `threads.one_blas_thread` limits the loaded libraries.
import scipy.linalg.cython_blas  # noqa: F401

from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.sparse.rows import SparseRows
from service.training.interactions import Float32, Float64, Int32

# Scaled table rows held at a time; their float32 products are summed in float64.
CHUNK: Final = 256
# Matrix rows eliminated at a time, to touch the rest of the matrix less often.
PANEL: Final = 4


class _Work(NamedTuple):
    """Buffers reused for each row: k factors, blocks of b factors, at most n interactions."""

    scaled: Float32  # (c * b or b * k,), rows of the table
    products: Float32  # (b * b,)
    system: Float64  # (b, b)
    panel: Float64  # (PANEL, b)
    right: Float64  # (b,)
    step: Float32  # (b,)
    residuals: Float32  # (n,)
    shrinkage: Float32  # (k,), 1 / sqrt(spectrum + penalty)


@compiled
def solve_rows(
    start: int,
    stop: int,
    pairs: SparseRows,
    table: Float32,
    spectrum: Float64,
    penalties: Float64,
    solved: Float32,
    block_size: int,
) -> None:  # pragma: no cover  # compiled; tests/reference/ials.py
    """Solve rows start to stop; rows without interactions keep their values.

    Args:
        pairs: Rows of the table for each row; values are square roots of weights, negative where -1 is wanted.
        table: Float32 (n_table, k).
        spectrum: Float64 (k,), at least 0.
        penalties: Float64 (n_rows,), above 0.
        solved: Output, float32 (n_rows, k); also the start of a sweep over several blocks.
        block_size: 1 to k.
    """
    indptr, indices, scales = pairs
    k, b = table.shape[1], block_size
    longest = 0
    for row in range(start, stop):
        longest = max(longest, indptr[row + 1] - indptr[row])
    work = _Work(
        np.empty(max(min(longest, b) * k, min(longest, CHUNK) * b), np.float32),
        np.empty(b * b, np.float32),
        np.empty((b, b), np.float64),
        np.empty((PANEL, b), np.float64),
        np.empty(b, np.float64),
        np.empty(b, np.float32),
        np.empty(longest, np.float32),
        np.empty(k, np.float32),
    )
    for row in range(start, stop):
        begin, end = indptr[row], indptr[row + 1]
        if begin == end:
            continue
        for f in range(k):
            work.shrinkage[f] = 1.0 / np.sqrt(spectrum[f] + penalties[row])
        if end - begin <= b:
            _solve_few(indices[begin:end], scales[begin:end], table, solved[row], work)
        else:
            _sweep(indices[begin:end], scales[begin:end], table, solved[row], b, work)


@compiled
def _solve_few(
    rows: Int32, scales: Float32, table: Float32, factors: Float32, work: _Work
) -> None:  # pragma: no cover  # compiled
    """Solve a row exactly: with scaled table rows X, w = X' (I + X X')^-1 |s|, scaled."""
    n, k = rows.size, table.shape[1]
    scaled = work.scaled[: n * k].reshape((n, k))
    products = work.products[: n * n].reshape((n, n))
    _gather(rows, scales, table, 0, work.shrinkage, scaled)
    np.dot(scaled, scaled.T, products)
    for i in range(n):
        for j in range(n):
            work.system[i, j] = products[i, j]
        work.system[i, i] += 1.0
        work.right[i] = abs(scales[i])
    solve_positive(work.system, work.panel, work.right, n)
    for j in range(n):
        work.step[j] = work.right[j]
    np.dot(scaled.T, work.step[:n], factors)
    for f in range(k):
        factors[f] *= work.shrinkage[f]


@compiled
def _sweep(
    rows: Int32, scales: Float32, table: Float32, factors: Float32, block_size: int, work: _Work
) -> None:  # pragma: no cover  # compiled
    """Take one Newton step per block of factors; with one block the start does not matter."""
    n, k = rows.size, table.shape[1]
    residuals, system, right = work.residuals, work.system, work.right
    for j in range(n):
        residuals[j] = abs(scales[j])
    if block_size == k:
        factors[:] = 0
    else:
        for f in range(k):
            factors[f] /= work.shrinkage[f]
        for first in range(0, k, block_size):
            width = min(block_size, k - first)
            _subtract(rows, scales, table, first, factors[first : first + width], work)
    for first in range(0, k, block_size):
        width = min(block_size, k - first)
        products = work.products[: width * width].reshape((width, width))
        for i in range(width):
            for j in range(width):
                system[i, j] = 0.0
            system[i, i] = 1.0
            right[i] = -factors[first + i]
        for begin in range(0, n, CHUNK):
            end = min(n, begin + CHUNK)
            scaled = work.scaled[: (end - begin) * width].reshape((end - begin, width))
            _gather(rows[begin:end], scales[begin:end], table, first, work.shrinkage, scaled)
            np.dot(scaled.T, scaled, products)
            np.dot(scaled.T, residuals[begin:end], work.step[:width])
            for i in range(width):
                for j in range(width):
                    system[i, j] += products[i, j]
                right[i] += work.step[i]
        solve_positive(system, work.panel, right, width)
        for f in range(width):
            work.step[f] = right[f]
            factors[first + f] += work.step[f]
        if first + width < k:
            _subtract(rows, scales, table, first, work.step[:width], work)
    for f in range(k):
        factors[f] *= work.shrinkage[f]


@compiled
def _subtract(
    rows: Int32, scales: Float32, table: Float32, first: int, step: Float32, work: _Work
) -> None:  # pragma: no cover  # compiled
    """Subtract the predictions of a block of factors, or of a step of it, from the residuals."""
    n, width = rows.size, step.size
    predicted = np.empty(min(n, CHUNK), np.float32)
    for begin in range(0, n, CHUNK):
        end = min(n, begin + CHUNK)
        scaled = work.scaled[: (end - begin) * width].reshape((end - begin, width))
        _gather(rows[begin:end], scales[begin:end], table, first, work.shrinkage, scaled)
        np.dot(scaled, step, predicted[: end - begin])
        work.residuals[begin:end] -= predicted[: end - begin]


@compiled
def _gather(
    rows: Int32, scales: Float32, table: Float32, first: int, shrinkage: Float32, scaled: Float32
) -> None:  # pragma: no cover  # compiled
    """Write scaled table rows from column `first` on: float32 (n, width)."""
    for j in range(rows.size):
        row, scale = rows[j], scales[j]
        for f in range(scaled.shape[1]):
            scaled[j, f] = table[row, first + f] * (scale * shrinkage[first + f])


@compiled
def solve_positive(system: Float64, panel: Float64, right: Float64, n: int) -> None:  # pragma: no cover  # compiled
    """Replace `right` by the solution of a system of n equations, by Cholesky factorisation; destroys `system`.

    Args:
        system: Float64 (b, b), the upper triangle of an identity plus a positive semi-definite matrix.
        panel: Float64 (PANEL, b), a buffer.
        right: Float64 (b,).
        n: At most b.
    """
    for first in range(0, n, PANEL):
        height = min(PANEL, n - first)
        for p in range(height):
            row = first + p
            for j in range(row, n):
                panel[p, j] = system[row, j]
            for q in range(p):
                factor = panel[q, row]
                for j in range(row, n):
                    panel[p, j] -= factor * panel[q, j]
            inverse = 1.0 / np.sqrt(max(1.0, panel[p, row]))
            for j in range(row, n):
                panel[p, j] *= inverse
                system[row, j] = panel[p, j]
            # The diagonal holds inverses, which are finite because pivots are at least 1.
            system[row, row] = inverse
            for q in range(p):
                right[row] -= panel[q, row] * right[first + q]
            right[row] *= inverse
        for row in range(first + height, n):
            for p in range(height):
                right[row] -= panel[p, row] * right[first + p]
        if height < PANEL:
            continue
        for row in range(first + PANEL, n):
            factor_0, factor_1, factor_2, factor_3 = panel[0, row], panel[1, row], panel[2, row], panel[3, row]
            for j in range(row, n):
                system[row, j] -= (factor_0 * panel[0, j] + factor_1 * panel[1, j]) + (
                    factor_2 * panel[2, j] + factor_3 * panel[3, j]
                )
    for row in range(n - 1, -1, -1):
        total = right[row]
        for j in range(row + 1, n):
            total -= system[row, j] * right[j]
        right[row] = total * system[row, row]
