"""What a hidden item counts, against lists that are written out."""

import math

import numpy as np
import pytest

from service.training.deep.next_item.validation import LENGTH, NextValidation
from service.training.interactions import Float32, Float64, Int64
from tests.support.interactions import rated

N_USERS, N_ITEMS, N_KNOWN = 7, 30, 27
# User u has the items u, u + 5 and u + 10, the last of which is hidden; of user 6 it is one that is not learnt.
ROWS = [(user, user + 5 * place, 1.0) for user in range(N_USERS) for place in range(3)]
ROWS[-1] = (6, N_KNOWN, 1.0)
HIDDEN = np.arange(2, len(ROWS), 3)
ITEMS = np.eye(N_ITEMS, dtype=np.float32)  # so that the factors of a user are the scores


def validation() -> NextValidation:
    data = rated(ROWS, times=[place % 3 for place in range(len(ROWS))], n_items=N_ITEMS)
    return NextValidation(data, HIDDEN, np.arange(N_ITEMS) < N_KNOWN)


def by_hand(products: Float32, n_candidates: int, orders: Float32) -> list[float]:
    """Return what each hidden item counts in the list that is worst for it among equal scores."""
    found = []
    for user in range(N_USERS):
        (hidden,) = (item for row, item, _ in ROWS[2::3] if row == user)
        able = [item for item in range(N_KNOWN) if item not in {user, user + 5}]
        candidates = sorted(able, key=lambda item: -products[user, item])[:n_candidates]
        listed = sorted(candidates, key=lambda item: (-orders[user, item], item == hidden))[:LENGTH]
        found.append(1 / math.log2(listed.index(hidden) + 2) if hidden in listed else 0.0)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_gains_are_those_of_lists(seed: int) -> None:
    """Items that the user has, and those that are not learnt, are in no list."""
    scores = np.random.default_rng(seed).integers(0, 12, (N_USERS, N_ITEMS)).astype(np.float32)
    # So that the test sees more than zeros.
    scores[1, 11] = 11
    scores[2, 12] = 12
    expected = by_hand(scores, N_ITEMS, scores)
    assert sum(expected) > 0
    assert validation().gains(scores, ITEMS).tolist() == pytest.approx(expected)


def test_equal_scores_say_nothing() -> None:
    """A network that gives all items one score has no gain: the hidden item is not first among them."""
    assert not validation().gains(np.zeros((N_USERS, N_ITEMS), np.float32), ITEMS).any()


@pytest.mark.parametrize("n_candidates", [1, 8, 25, N_ITEMS, 100])
def test_ranked_gains_are_those_of_lists_in_two_steps(n_candidates: int) -> None:
    """The largest products are the candidates, the other scores order them, and equal ones count against the item."""
    rng = np.random.default_rng(n_candidates)
    products = rng.permuted(np.tile(np.arange(N_ITEMS, dtype=np.float32), (N_USERS, 1)), axis=1)
    orders = rng.integers(0, 6, (N_USERS, N_ITEMS)).astype(np.float32)
    # The candidates of 1 and 8 hold the hidden items of some users, so that the test sees more than zeros.
    products[:3, [10, 11, 12]] = N_ITEMS + np.eye(3, dtype=np.float32)

    def rank(users: Float32, candidates: Int64) -> Float32:
        rows = [int(np.flatnonzero((products == user).all(axis=1))[0]) for user in users]
        return np.take_along_axis(orders[rows], candidates, 1)

    found: Float64 = validation().ranked_gains(products, ITEMS, n_candidates, rank)
    expected = by_hand(products, n_candidates, orders)
    assert sum(expected) > 0
    assert found.tolist() == pytest.approx(expected)
