import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training.evaluation.measures.ranking import RANKING_MEASURES
from service.training.evaluation.measures.relevance import Relevance, relevant_items
from tests.support.interactions import rated

N_ITEMS = 12


def slow(family: str, shown: list[int], wanted: set[int], k: int) -> float:
    """One user's value, by the definition in the docs, item by item; `shown` may be shorter than k."""
    hits = [item in wanted for item in shown[:k]]
    if family == "precision":
        return sum(hits) / k
    if family == "recall":
        return sum(hits) / len(wanted)
    if family == "hit_rate":
        return float(any(hits))
    if family == "mrr":
        return next((1 / place for place, hit in enumerate(hits, 1) if hit), 0.0)
    if family == "map":
        precisions = [sum(hits[:place]) / place for place, hit in enumerate(hits, 1) if hit]
        return sum(precisions) / min(k, len(wanted))
    gain = sum(1 / math.log2(place + 1) for place, hit in enumerate(hits, 1) if hit)
    return gain / sum(1 / math.log2(place + 1) for place in range(1, min(k, len(wanted)) + 1))


User = st.tuples(
    st.permutations(range(N_ITEMS)).flatmap(lambda order: st.integers(0, 6).map(lambda n: order[:n])),
    st.sets(st.integers(0, N_ITEMS - 1), min_size=1),
)


@pytest.mark.parametrize("family", RANKING_MEASURES)
@given(users=st.lists(User, min_size=1, max_size=5), k=st.integers(1, 6))
def test_measures_are_their_definitions(family: str, users: list[tuple[list[int], set[int]]], k: int) -> None:
    """For lists that are full, short and empty, and any set of relevant items."""
    test = rated(
        [(3 * row, item, 1.0) for row, (_, wanted) in enumerate(users) for item in sorted(wanted, reverse=True)],
        n_items=N_ITEMS,
    )
    relevance = relevant_items(test)
    lists = np.full((len(users), 6), -1, dtype=np.int32)
    for row, (shown, _) in enumerate(users):
        lists[row, : len(shown)] = shown
    assert relevance.user_rows.tolist() == [3 * row for row in range(len(users))]
    values = RANKING_MEASURES[family](relevance.hits(lists)[:, :k], relevance.counts)
    assert values.tolist() == pytest.approx([slow(family, shown, wanted, k) for shown, wanted in users])


def test_figures_by_hand() -> None:
    """A list with hits at places 1 and 3 of 4, for a user with three relevant items."""
    hits, counts = np.array([[True, False, True, False]]), np.array([3])
    values = {name: float(measure(hits, counts)[0]) for name, measure in RANKING_MEASURES.items()}
    assert values == pytest.approx(
        {
            "precision": 0.5,
            "recall": 2 / 3,
            "map": (1 + 2 / 3) / 3,
            "ndcg": 1.5 / (1 + 1 / math.log2(3) + 0.5),
            "mrr": 1.0,
            "hit_rate": 1.0,
        }
    )


def test_relevant_items() -> None:
    """All held-out items, or those rated well; users without any are counted and not judged."""
    test = rated([(0, 2, 5), (0, 1, 3), (1, 0, 2), (2, 1, 4)], n_items=3)
    everything, good = relevant_items(test), relevant_items(test, relevant_from=4)
    assert (everything.user_rows.tolist(), everything.counts.tolist()) == ([0, 1, 2], [2, 1, 1])
    assert everything.item_rows.tolist() == [1, 2, 0, 1]
    assert everything.n_without == 0
    assert (good.user_rows.tolist(), good.item_rows.tolist(), good.n_without) == ([0, 2], [2, 1], 1)
    assert len(relevant_items(test, relevant_from=6)) == 0


def test_a_sample_of_judged_users() -> None:
    """It has their items, in order; a sample of all users is all users."""
    relevance = relevant_items(rated([(user, item, 1.0) for user in range(30) for item in range(1 + user % 3)]))
    rng = np.random.default_rng(0)
    some = relevance.sample(7, rng)
    assert len(some) == 7
    assert some.user_rows.tolist() == sorted(some.user_rows.tolist())
    assert some.counts.tolist() == [1 + row % 3 for row in some.user_rows.tolist()]
    assert some.item_rows.tolist() == [item for row in some.user_rows.tolist() for item in range(1 + row % 3)]
    assert relevance.sample(30, rng) is relevance
    assert relevance.sample(None, rng) is relevance


def test_keeping_some_items() -> None:
    """Users without any of them are left out, and counted."""
    relevance = relevant_items(rated([(0, 0, 1), (0, 1, 1), (1, 1, 1), (2, 2, 1)]))
    rest, is_kept = relevance.keep_items(np.array([True, False, True]))
    assert isinstance(rest, Relevance)
    assert (rest.user_rows.tolist(), rest.item_rows.tolist(), rest.counts.tolist()) == ([0, 2], [0, 2], [1, 1])
    assert (is_kept.tolist(), rest.n_without) == ([True, False, True], 1)
