"""The largest numbers of each row of a table."""

import math

import numpy as np
from numpy.typing import NDArray


def largest_per_row(
    approximate: NDArray[np.float32], size: int, each: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Select the `size` largest numbers of each row, unordered.

    The row is cut into interleaved blocks. The `size` blocks with the largest maxima contain the `size` largest
    numbers: each has a number not below the smallest of those maxima, and no other block has a larger one.

    Args:
        approximate: NDArray[np.float32] (m, n), n larger than size.
        each: Int64 (m, 1), 0 to m - 1.

    Returns:
        Their columns, int64 (m, size), and the upper bound of the other numbers, float32 (m,).
    """
    n = approximate.shape[1]
    # Least work: as many blocks as numbers in the selected blocks.
    width = math.isqrt(n // size)
    count = n // width
    maxima = approximate[:, : width * count].reshape(-1, width, count).max(axis=1)
    chosen = maxima.argpartition(count - size, axis=1)[:, np.newaxis, -size:]
    pool = (chosen + np.arange(0, width * count, count)[:, np.newaxis]).reshape(len(each), -1)
    rest = np.arange(width * count, n)
    pool = np.concatenate([pool, np.broadcast_to(rest, (len(each), rest.size))], axis=1)
    values = approximate[each, pool]
    picked = values.argpartition(values.shape[1] - size, axis=1)[:, -size:]
    return pool[each, picked], values[each, picked[:, :1]][:, 0]
