"""Lists from matrix products and the selection kernels are those of the routine that serves them, to the last bit."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.generation.lists import selection
from service.generation.lists.block_lists import BlockUsers, best_items
from service.generation.lists.item_table import ItemTable
from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot

Make = Callable[..., ModelSnapshot]


def assert_as_served(snapshot: ModelSnapshot, n: int, allowed: np.ndarray | None = None) -> None:
    """Compare the lists of all users with those that are made one by one."""
    items = ItemTable.of(snapshot, allowed)
    lists = best_items(items, BlockUsers.trained(snapshot), n)
    barred = np.empty(0, np.int64) if allowed is None else np.flatnonzero(~allowed)
    for user, (columns, scores, count) in enumerate(zip(*lists, strict=True)):
        (expected,) = scoring.personal(snapshot, [scoring.TopNRequest(user, n, exclude=barred)])
        assert items.rows[columns[:count]].tolist() == expected.rows.tolist()
        assert scores[:count].tobytes() == expected.scores.tobytes()
        assert (columns[count:] == selection.NO_COLUMN).all()


@settings(max_examples=60)
@given(
    seed=st.integers(0, 50),
    n_items=st.integers(1, 300),
    n=st.integers(1, 60),
    k=st.sampled_from([0, 1, 8, 100, 129]),
    allowed=st.none() | st.sets(st.integers(0, 299), max_size=60),
    duplicate_items=st.booleans(),
    without=st.booleans(),
    rounded=st.booleans(),
)
def test_lists_are_those_of_the_service(
    make_snapshot: Make,
    seed: int,
    n_items: int,
    n: int,
    k: int,
    allowed: set[int] | None,
    duplicate_items: bool,
    without: bool,
    rounded: bool,
) -> None:
    """With ties, filters, users without factors, and fewer items than asked for."""
    snapshot = make_snapshot(n_items=n_items, k=k, seed=seed, duplicate_items=duplicate_items)
    factors, bias = snapshot.user_factors.copy(), snapshot.item_bias
    if without:
        factors[::2] = 0
    if rounded:
        bias = bias.round(0)
    snapshot = dataclasses.replace(snapshot, user_factors=factors, item_bias=bias)
    mask = None if allowed is None else np.isin(np.arange(n_items), sorted(allowed))
    assert_as_served(snapshot, n, mask)


def test_many_blocks_and_tiles(make_snapshot: Make) -> None:
    """More users than a block has, and more items than a tile has."""
    assert_as_served(make_snapshot(n_users=600, n_items=2500, k=5), 20)


def test_a_list_among_equal_scores_is_found_by_more_candidates(make_snapshot: Make) -> None:
    """Hundreds of items with one score: the popular ones come first, whatever the margin."""
    made = make_snapshot(n_users=300, n_items=1500, k=4)
    items = made.item_factors.copy()
    items[100:] = items[100]
    bias = np.zeros_like(made.item_bias)
    assert_as_served(dataclasses.replace(made, item_factors=items, item_bias=bias), 150)


def test_constants_that_round_two_biases_to_one_score(make_snapshot: Make) -> None:
    """Of users without factors, scores may tie where biases do not; then popularity decides between them."""
    made = make_snapshot(n_users=3, n_items=400, k=2)
    rng = np.random.default_rng(0)
    bias = (rng.integers(0, 3, 400) * np.float32(2.0**-30) + np.float32(2.0**-22)).astype(np.float32)
    users = np.zeros_like(made.user_factors)
    user_bias = np.array([0, 2.0**24, 2.0**30], np.float32)
    assert_as_served(
        dataclasses.replace(made, user_factors=users, item_bias=bias, user_bias=user_bias, global_mean=0.0), 30
    )


@pytest.mark.parametrize("k", [0, 1, 7, 8, 9, 64, 127, 128, 129, 200, 257, 1000, 4099])
def test_exact_sums_are_those_of_numpy(k: int) -> None:
    """The kernel adds in the order of `numpy.add.reduce`, so that a score has the same bits in both."""
    rng = np.random.default_rng(k)
    user = rng.normal(size=k).astype(np.float32)
    items = rng.normal(size=(20, k)).astype(np.float32)
    terms = np.multiply(items, user, dtype=np.float64)
    sums = np.array([selection._pairwise_sum(row) for row in terms])
    assert sums.tobytes() == scoring.products(items, user).tobytes()
