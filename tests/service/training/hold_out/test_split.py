from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.models.history.user_history import DISMISS
from service.training.hold_out import split as module
from service.training.hold_out.split import hold_out
from service.training.interactions import Interactions
from tests.support.interactions import rated, times, triples


def split_of(data: Interactions) -> module.HoldOut:
    found = hold_out(data, np.random.default_rng(0))
    assert found is not None
    return found


def test_the_youngest_of_each_user_is_held_out() -> None:
    """A tenth, rounded down, at least one of two or more; of equal times the later position."""
    rows = [(0, item, 1.0) for item in range(30)] + [(1, item, 1.0) for item in range(2)] + [(2, 7, 1.0)]
    moments = [*range(30, 0, -1), 5, 5, 99]
    found = split_of(rated(rows, times=moments))
    assert found.split == "time-per-user"
    assert triples(found.hidden) == [("u0", "i0", 1.0), ("u0", "i1", 1.0), ("u0", "i2", 1.0), ("u1", "i1", 1.0)]
    assert found.described() == {"split": "time-per-user", "share": 0.1, "n": 4, "users": 2}
    assert found.positions.tolist() == [0, 1, 2, 31]


@pytest.mark.parametrize("moments", [None, [7] * 40])
def test_without_an_order_a_random_tenth_is_held_out(moments: list[int] | None) -> None:
    """Times that are all equal say nothing."""
    found = split_of(rated([(user, item, 1.0) for user in range(10) for item in range(4)], times=moments))
    assert (found.split, len(found.hidden), len(found.train)) == ("random", 4, 36)


@pytest.mark.parametrize("moments", [None, list(range(40))])
def test_too_little_is_not_split(moments: list[int] | None) -> None:
    """Fewer than ten interactions; or by time nobody with two."""
    few = rated([(0, item, 1.0) for item in range(9)], times=None if moments is None else moments[:9])
    assert hold_out(few, np.random.default_rng(0)) is None
    alone = rated([(user, 0, 1.0) for user in range(40)], times=moments)
    assert (hold_out(alone, np.random.default_rng(0)) is None) == (moments is not None)


def test_a_dismissal_is_learnt_from() -> None:
    """A list with the item would be no success."""
    data = rated([(user, item, 1.0) for user in range(5) for item in range(4)], times=list(range(20)))
    types = np.zeros(20, np.uint8)
    types[[3, 7]] = DISMISS
    found = split_of(replace(data, types=types))
    assert found.positions.tolist() == [11, 15, 19]
    assert len(found.train) == 17
    assert hold_out(replace(data, types=np.full(20, DISMISS, np.uint8)), np.random.default_rng(0)) is None


def test_of_many_users_those_are_judged_who_were_active_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of them within the bounds; everything of the others is learnt from."""
    monkeypatch.setattr(module, "_ALL_USERS", 3)
    rows = [(user, item, 1.0) for user in range(12) for item in range(2)]
    found = split_of(rated(rows, times=[100 * (11 - user) + item for user, item, _ in rows]))
    assert {user for user, _, _ in triples(found.hidden)} == {"u0", "u1", "u2", "u3"}
    assert len(found.train) == 20
    assert min(times(found.hidden)) > max(times(found.train)) - 300
    monkeypatch.setattr(module, "MOST_USERS", 2)
    assert {user for user, _, _ in triples(split_of(rated(rows, times=list(range(24)))).hidden)} == {"u10", "u11"}


@given(
    pairs=st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=10),
    moments=st.lists(st.integers(0, 5), min_size=81, max_size=81),
    timed=st.booleans(),
)
def test_both_sides_make_the_whole(pairs: set[tuple[int, int]], moments: list[int], *, timed: bool) -> None:
    """Nothing is lost or on both sides; a held-out interaction is never older than one that is learnt of its user."""
    rows = [(user, item, 1.0) for user, item in sorted(pairs)]
    data = rated(rows, times=moments[: len(rows)] if timed else None, n_users=9, n_items=9)
    found = hold_out(data, np.random.default_rng(0))
    if found is None:
        return
    assert sorted(triples(found.train) + triples(found.hidden)) == sorted(triples(data))
    assert found.positions.size == len(found.hidden)
    if found.split == "random":
        return
    for user in set(found.hidden.user_rows.tolist()):
        learnt = [time for row, time in zip(found.train.user_rows, times(found.train), strict=True) if row == user]
        hidden = [time for row, time in zip(found.hidden.user_rows, times(found.hidden), strict=True) if row == user]
        assert max(learnt) <= min(hidden)
