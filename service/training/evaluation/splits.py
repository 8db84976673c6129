"""Which ratings a model may learn from and which it is judged by (pure; one generator, handed in).

Invariant: no position is on both sides of a split, and every position is on one. Over the folds of `k_fold` each is
judged exactly once. Both sides come in ascending order.
"""

from collections.abc import Iterator

import numpy as np

from service.training.interactions import Int32, Int64

Positions = Int64


def k_fold(n: int, n_folds: int, rng: np.random.Generator) -> Iterator[tuple[Positions, Positions]]:
    """SplitDataset n ratings at random into folds whose sizes differ by at most one.

    Args:
        n: How many ratings there are.
        n_folds: 2 to n.
        rng: Decides which rating is in which fold.

    Yields:
        (train, test) for each fold: int64 positions, ascending.

    Raises:
        ValueError: There are fewer than 2 folds or fewer ratings than folds.
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
        n: How many ratings there are.
        share: The part to judge by, between 0 and 1; rounded down to whole ratings.
        rng: Decides which.

    Returns:
        (train, test) as int64 positions, ascending; None if one side would be empty.
    """
    n_test = int(n * share)
    if not 0 < n_test < n:
        return None
    return _sides(n, rng.permutation(n)[:n_test])


def leave_one_out(user_rows: Int32, order: Int64) -> tuple[Positions, Positions]:
    """Set each user's last rating aside; a user with a single one keeps it.

    Args:
        user_rows: Int32 (n,).
        order: Int64 (n,), such as times: the largest is the last, of equal ones the last position.

    Returns:
        (train, test) as int64 positions, ascending; the test side may be empty.
    """
    by_user, from_end, lengths = _from_end(user_rows, order)
    return _sides(user_rows.size, by_user[(from_end == 0) & (lengths > 1)])


def youngest(order: Int64, share: float) -> tuple[Positions, Positions]:
    """Set the youngest ratings of all aside.

    Args:
        order: Int64 (n,), such as times: the largest are the youngest, of equal ones the last positions.
        share: The part to judge by, between 0 and 1; rounded down to whole ratings.

    Returns:
        (train, test) as int64 positions, ascending; the test side may be empty.
    """
    n = order.size
    return _sides(n, np.argsort(order, kind="stable")[n - int(n * share) :])


def youngest_of_users(user_rows: Int32, order: Int64, share: float) -> tuple[Positions, Positions]:
    """Set each user's youngest ratings aside: a share, rounded down, but at least one of two or more.

    Args:
        user_rows: Int32 (n,).
        order: Int64 (n,), such as times: the largest are the youngest, of equal ones the last positions.
        share: The part to judge by, between 0 and 1.

    Returns:
        (train, test) as int64 positions, ascending; the test side may be empty.
    """
    by_user, from_end, lengths = _from_end(user_rows, order)
    n_judged = np.maximum((lengths * share).astype(np.int64), lengths > 1)
    return _sides(user_rows.size, by_user[from_end < n_judged])


def _from_end(user_rows: Int32, order: Int64) -> tuple[Positions, Int64, Int64]:
    """Return positions, user after user in order, and for each the place from its user's end and the user's length."""
    by_user = np.lexsort((order, user_rows))  # stable, so that equal ones stay in order of position
    lengths = np.bincount(user_rows)
    ends = np.cumsum(lengths)
    users = user_rows[by_user]
    return by_user, ends[users] - 1 - np.arange(users.size), lengths[users].astype(np.int64)


def _sides(n: int, test: Positions) -> tuple[Positions, Positions]:
    is_judged = np.zeros(n, dtype=bool)
    is_judged[test] = True
    return np.flatnonzero(~is_judged), np.flatnonzero(is_judged)
