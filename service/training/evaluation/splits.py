"""Positions of the ratings on the training and the held-out side of a split (pure).

Invariant: every position is on exactly one side, and over the folds of `k_fold` each is held out exactly once. A split
is (train, test), both int64 and ascending. An order is int64 (n,), such as times: the largest is the latest, of equal
ones the last position.
"""

from collections.abc import Iterator

import numpy as np

from service.training.interactions import Int32, Int64

Positions = Int64


def k_fold(n: int, n_folds: int, rng: np.random.Generator) -> Iterator[tuple[Positions, Positions]]:
    """Split n ratings at random into folds whose sizes differ by at most one.

    Raises:
        ValueError: There are fewer than 2 folds or fewer ratings than folds.
    """
    if not 2 <= n_folds <= n:
        raise ValueError(f"{n} ratings cannot be split into {n_folds} folds.")
    fold_of = np.arange(n, dtype=np.int32) % n_folds
    rng.shuffle(fold_of)
    for fold in range(n_folds):
        yield np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)


def hold_out(n: int, share: float, rng: np.random.Generator) -> tuple[Positions, Positions] | None:
    """Hold out a random share of n ratings, between 0 and 1, rounded down; None if one side would be empty."""
    n_test = int(n * share)
    if not 0 < n_test < n:
        return None
    return _sides(n, rng.permutation(n)[:n_test])


def leave_one_out(user_rows: Int32, order: Int64) -> tuple[Positions, Positions]:
    """Hold out each user's latest rating, unless it is the only one; the test side may be empty."""
    by_user, from_end, lengths = _from_end(user_rows, order)
    return _sides(user_rows.size, by_user[(from_end == 0) & (lengths > 1)])


def latest_share(order: Int64, share: float) -> tuple[Positions, Positions]:
    """Hold out the latest ratings of all: a share, rounded down; the test side may be empty."""
    n = order.size
    return _sides(n, np.argsort(order, kind="stable")[n - int(n * share) :])


def latest_share_of_users(user_rows: Int32, order: Int64, share: float) -> tuple[Positions, Positions]:
    """Hold out each user's latest ratings: a share, rounded down, but at least one of two or more."""
    by_user, from_end, lengths = _from_end(user_rows, order)
    n_test = np.maximum((lengths * share).astype(np.int64), lengths > 1)
    return _sides(user_rows.size, by_user[from_end < n_test])


def _from_end(user_rows: Int32, order: Int64) -> tuple[Positions, Int64, Int64]:
    """Return positions by user and order, and for each its distance from the user's last one and the user's length."""
    by_user = np.lexsort((order, user_rows))  # stable, so that equal ones stay in order of position
    lengths = np.bincount(user_rows)
    ends = np.cumsum(lengths)
    users = user_rows[by_user]
    return by_user, ends[users] - 1 - np.arange(users.size), lengths[users].astype(np.int64)


def _sides(n: int, test: Positions) -> tuple[Positions, Positions]:
    is_test = np.zeros(n, dtype=bool)
    is_test[test] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)
