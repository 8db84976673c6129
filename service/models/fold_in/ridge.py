"""Small ridge regressions of one user's factors, by Cholesky factorisation.

Invariant: the same inputs give the same bits while linear algebra runs on one thread, as it does in a replica.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import get_lapack_funcs

Float64 = NDArray[np.float64]

_SOLVERS: Any = get_lapack_funcs(("posv",), dtype=np.float64)


def gramian(table: Float64, weights: Float64 | None = None) -> Float64:
    """Return the sum of the outer products of rows (m, k), each times its weight of at least 0 (m,): float64 (k, k)."""
    scaled = table if weights is None else table * np.sqrt(weights)[:, np.newaxis]
    product: Float64 = scaled.T @ scaled
    return product


def add_to_diagonal(system: Float64, penalties: Float64 | float) -> None:
    """Add a penalty to each element of the diagonal of a system, float64 (k, k)."""
    system.flat[:: len(system) + 1] += penalties


def solve(system: Float64, right: Float64) -> Float64:
    """Solve a symmetric positive definite system, float64 (k, k), which is overwritten, for a right side (k,).

    Returns:
        float64 (k,); zeros if rounding leaves the system not positive definite, because hardly anything is regularised.
    """
    if not right.size:
        return right
    (posv,) = _SOLVERS
    # LAPACK is column-major; a symmetric matrix is its own transpose.
    _, solution, fault = posv(system.T, right, overwrite_a=1)
    found: Float64 = np.zeros_like(right) if fault or not np.isfinite(solution.sum()) else solution
    return found
