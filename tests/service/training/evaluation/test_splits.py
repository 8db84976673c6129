import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training.evaluation.splits import hold_out, k_fold, latest_share, latest_share_of_users, leave_one_out


@given(n=st.integers(2, 200), data=st.data())
def test_every_rating_is_held_out_once(n: int, data: st.DataObject) -> None:
    """Test sides are a partition into near-equal parts, and a train side is all the rest."""
    n_folds = data.draw(st.integers(2, n))
    folds = list(k_fold(n, n_folds, np.random.default_rng(data.draw(st.integers(0, 5)))))
    assert len(folds) == n_folds
    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(n))
    for train, test in folds:
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(n))
        assert test.size in {n // n_folds, -(-n // n_folds)}


def test_folds_follow_the_generator() -> None:
    """The same generator gives the same folds, another one others; they are not simply every fifth rating."""
    first, same, other = ([test.tolist() for _, test in k_fold(100, 5, np.random.default_rng(s))] for s in (1, 1, 2))
    assert first == same != other
    assert first[0] != list(range(0, 100, 5))


@pytest.mark.parametrize(("n", "n_folds"), [(10, 1), (10, 11), (1, 2), (0, 0)])
def test_impossible_folds(n: int, n_folds: int) -> None:
    """Fewer than two, or more than there are ratings."""
    with pytest.raises(ValueError, match="cannot be split"):
        next(k_fold(n, n_folds, np.random.default_rng(0)))


@given(n=st.integers(0, 300), share=st.floats(0.01, 0.99))
def test_a_hold_out_is_a_share_of_the_whole(n: int, share: float) -> None:
    """Both sides together are all; if one would be empty there is none."""
    split = hold_out(n, share, np.random.default_rng(0))
    if split is None:
        assert int(n * share) == 0
    else:
        train, test = split
        assert test.size == int(n * share)
        assert train.size
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(n))


Rated = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=40)


@given(rows=Rated, share=st.floats(0.01, 0.99))
def test_splits_by_time_equal_their_definition(rows: list[tuple[int, int]], share: float) -> None:
    """Against the slow definition: sort the positions by time, later positions last, and cut from the end."""
    users = np.array([user for user, _ in rows], dtype=np.int32)
    times = np.array([time for _, time in rows], dtype=np.int64)

    def last(positions: list[int], n: int) -> set[int]:
        in_order = sorted(positions, key=lambda position: (times[position], position))
        return set(in_order[len(in_order) - n :])

    own = [[p for p in range(len(rows)) if users[p] == user] for user in range(5)]
    expected = {
        "all": last(list(range(len(rows))), int(len(rows) * share)),
        "one": set().union(*(last(mine, 1) for mine in own if len(mine) > 1)),
        "each": set().union(*(last(mine, max(1, int(len(mine) * share))) for mine in own if len(mine) > 1)),
    }
    made = {
        "all": latest_share(times, share),
        "one": leave_one_out(users, times),
        "each": latest_share_of_users(users, times, share),
    }
    for name, (train, test) in made.items():
        assert set(test.tolist()) == expected[name]
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(rows)))
        assert test.tolist() == sorted(test.tolist())
