from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.factors import visit_order
from service.training.algorithms.kernels.factors.visit_order import Visits
from service.training.data import datasets
from service.training.interactions import Interactions


@pytest.fixture(scope="module")
def large() -> Interactions:
    """Just large enough for a grid."""
    return datasets.read("demo:2000x400x260000")


def ratings_of(users: np.ndarray, items: np.ndarray, ratings: np.ndarray) -> list[tuple[int, int, float]]:
    return sorted(zip(users.tolist(), items.tolist(), ratings.tolist(), strict=True))


def blocks(visiting: Visits) -> Iterator[list[slice]]:
    for bounds in visiting.bounds.tolist():
        yield [slice(*ends) for ends in pairwise(bounds)]


def test_ratings_are_visited_user_by_user() -> None:
    """Every rating once, grouped by user, users in random order."""
    user_rows = np.random.default_rng(0).integers(0, 50, 1000).astype(np.int32)
    order = visit_order.visiting_order(user_rows, 60, np.random.default_rng(1))
    assert sorted(order.tolist()) == list(range(1000))
    visited = user_rows[order]
    assert int(np.sum(np.diff(visited) != 0)) == np.unique(user_rows).size - 1
    assert np.any(np.diff(visited) < 0)


def test_positions_are_grouped_in_their_order() -> None:
    """A stable sort by key, and the start of each key; a key may have no position."""
    keys = np.array([2, 0, 2, 4, 0], dtype=np.int32)
    order, starts = visit_order.group_by_key(keys, 6)
    assert order.tolist() == [1, 4, 0, 2, 3]
    assert starts.tolist() == [0, 2, 2, 4, 4, 5, 5]


def test_a_small_set_is_one_block() -> None:
    """The order of the grid is the order user by user."""
    data = datasets.read("demo:60x40x900")
    whole, cut = (make(data, np.random.default_rng(0)) for make in (visit_order.user_by_user, visit_order.in_grid))
    assert cut.bounds.tolist() == whole.bounds.tolist() == [[0, len(data)]]
    assert cut.ratings.items.tobytes() == whole.ratings.items.tobytes()


def test_a_large_set_is_a_grid_whose_rounds_share_nothing(large: Interactions) -> None:
    """Every rating once; blocks of a round share no user and no item, and have similar sizes."""
    visiting = visit_order.in_grid(large, np.random.default_rng(0))
    assert visiting.bounds.shape == (8, 9)
    assert ratings_of(*visiting.ratings) == ratings_of(large.user_rows, large.item_rows, large.ratings)
    ends = visiting.bounds.ravel().tolist()
    assert (ends[0], ends[-1]) == (0, len(large))
    for together in blocks(visiting):
        for rows in visiting.ratings[:2]:
            sets = [set(rows[block].tolist()) for block in together]
            assert len(set().union(*sets)) == sum(map(len, sets))
        sizes = [block.stop - block.start for block in together]
        assert max(sizes) < 1.5 * min(sizes)


@pytest.mark.parametrize("n_groups", [None, 5])
def test_a_round_moves_the_items_on_by_one_group(large: Interactions, n_groups: int | None) -> None:
    """Block b of round r has the users of group b and the items of group b + r, modulo their number."""
    visiting = visit_order.in_grid(large, np.random.default_rng(0), n_groups=n_groups)
    n = n_groups or 8
    assert visiting.bounds.shape == (n, n + 1)
    users, items = (np.full(size, -1) for size in (len(large.users), len(large.items)))
    for number, together in enumerate(blocks(visiting)):
        for b, block in enumerate(together):
            for groups, rows, group in (
                (users, visiting.ratings.users[block], b),
                (items, visiting.ratings.items[block], (b + number) % n),
            ):
                assert set(groups[rows].tolist()) <= {-1, group}
                groups[rows] = group


def test_rounds_follow_one_another_on_any_number_of_threads(large: Interactions) -> None:
    """Each block is visited once, after all earlier rounds, and the returned errors are summed."""
    visiting = visit_order.in_grid(large, np.random.default_rng(0))
    visited: list[tuple[int, int]] = []

    def visit(start: int, stop: int) -> float:
        visited.append((start, stop))
        return float(stop - start)

    for n_threads in (1, 4):
        visited.clear()
        with threads.limit(n_threads):
            assert visiting.epoch(visit) == len(large)
        expected = [(block.start, block.stop) for together in blocks(visiting) for block in together]
        for start in range(0, len(expected), 8):
            assert sorted(visited[start : start + 8]) == expected[start : start + 8]
