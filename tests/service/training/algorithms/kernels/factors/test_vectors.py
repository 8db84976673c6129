import numpy as np
import pytest
from numba import njit

from service.training.algorithms.kernels.factors.vectors import LANES, prefetch, product


@njit
def _product(table: np.ndarray, row: int, other: np.ndarray, other_row: int) -> np.float32:
    prefetch(table, row)
    return product(table, row, other, other_row)


def _in_the_documented_order(a: np.ndarray, b: np.ndarray) -> np.float32:
    lots = np.zeros((4, LANES), dtype=np.float32)
    vectors = (a * b).reshape(-1, LANES)
    n_whole = len(vectors) // 4 * 4
    for n, vector in enumerate(vectors):
        lots[n % 4 if n < n_whole else 0] += vector
    total = (lots[0] + lots[1]) + (lots[2] + lots[3])
    while total.size > 1:
        total = total[: total.size // 2] + total[total.size // 2 :]
    return np.float32(total[0])


@pytest.mark.parametrize("width", [8, 16, 24, 32, 40, 64, 104, 136])
def test_a_product_is_added_up_in_its_documented_order(width: int) -> None:
    """Bit for bit, in rows of any whole number of lanes."""
    rng = np.random.default_rng(width)
    table, other = (rng.standard_normal((n, width)).astype(np.float32) for n in (5, 3))
    for row, other_row in ((0, 0), (4, 2), (2, 1)):
        assert np.float32(_product(table, row, other, other_row)) == _in_the_documented_order(
            table[row], other[other_row]
        )
