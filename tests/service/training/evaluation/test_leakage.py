import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training.assembly import history
from service.training.evaluation.leakage import Leakage, is_member, n_in_history
from tests.support.interactions import rated


def test_leakage_is_counted() -> None:
    """Of five held-out interactions: one is in both, one of a cold user, one of a cold item; times by hand."""
    train = rated([(0, 0, 1), (0, 1, 2), (1, 0, 3)], times=[10, 20, 30], n_users=3, n_items=3)
    test = rated(
        [(0, 1, 2), (0, 2, 3), (1, 1, 4), (2, 0, 5), (1, 1, 1)], times=[20, 15, 40, 5, 41], n_users=3, n_items=3
    )
    found = Leakage(n_left_out=7)
    found.add(train, test)
    assert found.as_json() == {
        "test_interactions": 5,
        "on_both_sides": 1,
        "left_out": 7,
        "repeated": 1,
        "cold_users": 1,
        "cold_items": 1,
        "of_cold_users": 0.2,
        "of_cold_items": 0.2,
        "older_than_own_training": 0.2,
        "older_than_newest_training": 0.6,
    }
    notes = " ".join(found.notes())
    assert "1 held-out pairs are on the training side too" in notes
    assert "20% of the held-out" in notes
    assert "1 held-out interactions are of users without training interactions" in notes
    assert "1 held-out interactions are of items without training interactions" in notes
    assert "held out twice" in notes


def test_splits_add_up_and_a_clean_one_has_no_notes() -> None:
    """Later interactions of known users and items, apart."""
    train, test = rated([(0, 0, 1), (0, 1, 2)], times=[1, 2]), rated([(0, 1, 5)], times=[3])
    found = Leakage()
    for _ in range(2):
        found.add(train, rated([(0, 0, 1)], times=[3], n_items=2).take(np.empty(0, dtype=np.int64)))
    assert found.as_json()["test_interactions"] == 0
    assert not found.notes()
    found.add(train, test)
    found.add(train, test)
    assert (found.as_json()["test_interactions"], found.as_json()["on_both_sides"]) == (2, 2)


def test_without_times_the_age_is_unknown() -> None:
    """It is None, not 0."""
    found = Leakage()
    found.add(rated([(0, 0, 1)], n_items=2), rated([(0, 1, 1)]))
    assert found.as_json()["older_than_own_training"] is None
    assert not found.notes()[1:]


def test_held_out_pairs_in_a_history() -> None:
    """They are counted."""
    train, test = rated([(0, 0, 1), (1, 2, 2)]), rated([(0, 1, 3), (1, 2, 2)])
    assert n_in_history(history(train), test.take(np.array([0]))) == 0
    assert n_in_history(history(train), test) == 1


@given(numbers=st.lists(st.integers(-5, 5)), others=st.lists(st.integers(-5, 5)))
def test_is_member(numbers: list[int], others: list[int]) -> None:
    """As for sets."""
    found = is_member(np.array(numbers, dtype=np.int64), np.array(sorted(others), dtype=np.int64))
    assert found.tolist() == [number in others for number in numbers]
    assert found.dtype == np.bool_


@pytest.mark.parametrize("n", [0, 3])
def test_no_training_data(n: int) -> None:
    """Everything is cold."""
    test = rated([(0, item, 1.0) for item in range(3)], n_users=1, n_items=3).take(np.arange(n))
    found = Leakage()
    found.add(rated([], n_users=1, n_items=3), test)
    assert found.as_json()["of_cold_users"] == (1.0 if n else 0.0)
