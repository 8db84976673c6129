"""The mean of many products of factor tables, as one product of factor tables.

Invariant: the state is the best approximation of rank 2k of the previous state plus the last product (Eckart and Young,
1936).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.training.interactions import Float64


class MeanProduct:
    """Accumulates (user table, item table) pairs, and returns the leading factors of the mean of their products."""

    def __init__(self, n_users: int, n_items: int, k: int) -> None:
        self._k = k
        self._n = 0
        self._users = np.empty((n_users, 0), np.float32)
        self._items = np.empty((n_items, 0), np.float32)

    def add(self, users: NDArray[np.floating[Any]], items: NDArray[np.floating[Any]]) -> None:
        """Add the product of tables (n_users, k) and (n_items, k)."""
        side_by_side = np.hstack([self._users, users]), np.hstack([self._items, items])
        self._users, self._items = (table.astype(np.float32) for table in truncated(*side_by_side, 2 * self._k))
        self._n += 1

    def factors(self) -> tuple[Float64, Float64]:
        """Return the leading k factors of the mean: float64 (n_users, k) and (n_items, k).

        With fewer than k users or items, the remaining columns are zeros.
        """
        users, items = truncated(self._users, self._items, self._k)
        missing = ((0, 0), (0, self._k - users.shape[1]))
        return np.pad(users / max(1, self._n), missing), np.pad(items, missing)


def truncated(users: NDArray[np.floating[Any]], items: NDArray[np.floating[Any]], rank: int) -> tuple[Float64, Float64]:
    """Return the best approximation of users @ items.T of at most a rank, as two tables with equal column norms.

    Args:
        users: Float (n_users, w).
        items: Float (n_items, w).
        rank: Maximum number of columns.
    """
    user_basis, user_part = np.linalg.qr(users.astype(np.float64))
    item_basis, item_part = np.linalg.qr(items.astype(np.float64))
    left, sizes, right = np.linalg.svd(user_part @ item_part.T)
    kept = min(rank, sizes.size)
    roots = np.sqrt(sizes[:kept])
    return user_basis @ (left[:, :kept] * roots), item_basis @ (right[:kept].T * roots)
