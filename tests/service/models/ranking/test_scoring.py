"""Lists agree with the plain definition on every code path."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot

Make = Callable[..., ModelSnapshot]


def by_definition(snapshot: ModelSnapshot, user_row: int, exclude: set[int], include: set[int] | None) -> list[int]:
    """Score all items exactly, sort and exclude."""
    rows = np.arange(len(snapshot.items), dtype=np.int64)
    scores = scoring.exact_scores(snapshot, user_row, rows)
    out = set(snapshot.seen_rows(user_row).tolist()) | exclude
    candidates = [row for row in rows.tolist() if row not in out and (include is None or row in include)]
    return sorted(candidates, key=lambda row: (-scores[row], -snapshot.popularity[row], row))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 50),
    n_items=st.integers(1, 300),
    n=st.integers(1, 60),
    offset=st.integers(0, 60),
    exclude=st.sets(st.integers(0, 299), max_size=20),
    include=st.none() | st.sets(st.integers(0, 299), max_size=40),
    duplicate_items=st.booleans(),
)
def test_a_personal_list_is_the_sorted_catalogue_without_exclusions(
    make_snapshot: Make,
    seed: int,
    n_items: int,
    n: int,
    offset: int,
    exclude: set[int],
    include: set[int] | None,
    duplicate_items: bool,
) -> None:
    """Independent of candidates, margins and ties."""
    snapshot = make_snapshot(n_items=n_items, seed=seed, duplicate_items=duplicate_items)
    exclude = {row for row in exclude if row < n_items}
    include = None if include is None else {row for row in include if row < n_items}
    request = scoring.TopNRequest(3, n, offset, np.array(sorted(exclude), dtype=np.int64))
    if include is None:
        (ranking,) = scoring.personal(snapshot, [request])
    else:
        ranking = scoring.personal_among(snapshot, request, np.array(sorted(include), dtype=np.int64))
    assert ranking.rows.tolist() == by_definition(snapshot, 3, exclude, include)[offset : offset + n]


@pytest.mark.parametrize("n_users", [1, 5])
def test_a_user_without_factors_gets_popular_items(make_snapshot: Make, n_users: int) -> None:
    """Alone and in a batch, and flagged as not personal."""
    made = make_snapshot(n_items=300)
    factors = made.user_factors.copy()
    factors[2] = 0
    snapshot = dataclasses.replace(made, user_factors=factors, item_bias=np.zeros_like(made.item_bias))
    requests = [scoring.TopNRequest(2, 20), *(scoring.TopNRequest(user, 20) for user in range(3, 2 + n_users))]
    unknown, *known = scoring.personal(snapshot, requests)
    seen = set(snapshot.seen_rows(2).tolist())
    assert unknown.rows.tolist() == [row for row in snapshot.popular_rows.tolist() if row not in seen][:20]
    assert unknown.is_personal is not None
    assert not unknown.is_personal.any()
    assert all(ranking.is_personal is None for ranking in known)
    among = scoring.personal_among(snapshot, scoring.TopNRequest(2, 20), np.arange(300))
    assert among.rows.tolist() == unknown.rows.tolist()
    assert among.is_personal is not None
    assert not among.is_personal.any()


@pytest.mark.parametrize("k", [1, 2, 7, 100, 129])
def test_an_exact_score_does_not_depend_on_other_items(make_snapshot: Make, k: int) -> None:
    """One item alone and among others has the same bits."""
    snapshot = make_snapshot(n_items=257, k=k)
    rows = np.arange(257, dtype=np.int64)
    together = scoring.exact_scores(snapshot, 2, rows)
    assert [float(scoring.exact_scores(snapshot, 2, rows[i : i + 1])[0]) for i in range(257)] == together.tolist()
    assert scoring.exact_scores(snapshot, 2, rows[::-3]).tolist() == together[::-3].tolist()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 20),
    n_items=st.integers(1, 300),
    k=st.sampled_from([1, 8, 100]),
    lists=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 40), st.integers(0, 20)), min_size=1, max_size=12),
    duplicate_items=st.booleans(),
)
def test_a_list_is_the_same_alone_and_in_a_batch(
    make_snapshot: Make, seed: int, n_items: int, k: int, lists: list[tuple[int, int, int]], duplicate_items: bool
) -> None:
    """Rows and scores, to the last bit."""
    snapshot = make_snapshot(n_items=n_items, k=k, seed=seed, duplicate_items=duplicate_items)
    requests = [scoring.TopNRequest(user_row, n, offset) for user_row, n, offset in lists]
    together = scoring.personal(snapshot, requests)
    for request, ranking in zip(requests, together, strict=True):
        (alone,) = scoring.personal(snapshot, [request])
        assert ranking.rows.tolist() == alone.rows.tolist()
        assert ranking.scores.tolist() == alone.scores.tolist()


def test_an_exact_score_is_the_model_formula(make_snapshot: Make) -> None:
    """global mean + user bias + item bias + the product of the factors."""
    snapshot = make_snapshot()
    expected = (
        3.5
        + float(snapshot.user_bias[1])
        + snapshot.item_bias.astype(np.float64)
        + snapshot.item_factors.astype(np.float64) @ snapshot.user_factors[1].astype(np.float64)
    )
    rows = np.arange(len(snapshot.items), dtype=np.int64)
    np.testing.assert_allclose(scoring.exact_scores(snapshot, 1, rows), expected, rtol=1e-12)


def test_a_user_who_has_seen_everything_gets_an_empty_list(make_snapshot: Make) -> None:
    """No seen item is returned."""
    snapshot = make_snapshot(n_items=40)
    everything = np.arange(40, dtype=np.int64)
    (ranking,) = scoring.personal(snapshot, [scoring.TopNRequest(0, 10, exclude=everything)])
    assert ranking.rows.size == 0


@pytest.mark.parametrize("include", [None, [3, 4, 5, 6, 7, 8]])
def test_popular_items_come_by_count_then_row(make_snapshot: Make, include: list[int] | None) -> None:
    """Exclusions, candidates and offset apply to the popular list as to a personal one."""
    snapshot = make_snapshot(n_items=30)
    exclude = [4, 9, 11]
    order = sorted(range(30), key=lambda row: (-float(snapshot.popularity[row]), row))
    expected = [row for row in order if row not in exclude and (include is None or row in include)]
    rows = scoring.popular(
        snapshot,
        5,
        offset=2,
        exclude=np.array(exclude, dtype=np.int64),
        include=None if include is None else np.array(include, dtype=np.int64),
    ).rows
    assert rows.tolist() == expected[2:7]
