"""Which ratings a model may learn from and which it is judged by (pure; one generator, handed in).

Invariant: of the positions of a set each is judged exactly once over the folds of `k_fold`, and at most once in
`hold_out`; no position is on both sides of a split. Both sides come in ascending order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


def k_fold(n: int, n_folds: int, rng: np.random.Generator) -> Iterator[tuple[Positions, Positions]]:
    """Cut n ratings at random into folds whose sizes differ by at most one.

    Args:
        n: how many ratings there are.
        n_folds: 2 to n.
        rng: decides which rating is in which fold.

    Yields:
        (train, test) for each fold: int64 positions, ascending.

    Raises:
        ValueError: there are fewer than 2 folds or fewer ratings than folds.
    """
    if not 2 <= n_folds <= n:
        raise ValueError(f"{n} ratings cannot be cut into {n_folds} folds")
    fold_of = np.arange(n, dtype=np.int32) % n_folds
    rng.shuffle(fold_of)
    for fold in range(n_folds):
        yield np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)


def hold_out(n: int, share: float, rng: np.random.Generator) -> tuple[Positions, Positions] | None:
    """Set a random share of n ratings aside.

    Args:
        n: how many ratings there are.
        share: the part to judge by, between 0 and 1; rounded down to whole ratings.
        rng: decides which.

    Returns:
        (train, test) as int64 positions, ascending; None if one side would be empty.
    """
    n_test = int(n * share)
    if not 0 < n_test < n:
        return None
    judged = np.zeros(n, dtype=bool)
    judged[rng.permutation(n)[:n_test]] = True
    return np.flatnonzero(~judged), np.flatnonzero(judged)
