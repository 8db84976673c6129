"""Sampled tails, and the probabilities that are written down with them."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.lists.exploration import Exploration, explore, explores


@given(
    scores=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40),
    n=st.integers(1, 20),
    id_=st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable()),
    head=st.floats(0, 1),
    temperature=st.floats(0.1, 10),
)
def test_an_explored_list_keeps_its_head_and_repeats_no_item(
    scores: list[float], n: int, id_: str, head: float, temperature: float
) -> None:
    """The same id draws the same list; propensities are probabilities."""
    ranked = np.sort(np.array(scores))[::-1]
    how = Exploration(head, 3.0, temperature)
    first, again = explore(ranked, n, id_, how), explore(ranked, n, id_, how)
    assert first.chosen.tolist() == again.chosen.tolist()
    assert len(set(first.chosen.tolist())) == first.chosen.size == min(n, ranked.size)
    n_head = how.n_head(first.chosen.size)
    assert first.chosen[:n_head].tolist() == list(range(n_head))
    assert first.propensities[:n_head].tolist() == [1.0] * n_head
    assert ((first.propensities > 0) & (first.propensities <= 1)).all()


def test_lists_come_as_often_as_their_propensities_say() -> None:
    """Over many ids, each ordered list of 2 of 4 items; four standard errors are allowed."""
    scores = np.array([2.0, 1.5, 0.5, 0.0])
    how = Exploration(head=0.0, temperature=1.0)
    n_draws = 20_000
    counts: dict[tuple[int, ...], int] = {}
    stated: dict[tuple[int, ...], float] = {}
    for number in range(n_draws):
        drawn = explore(scores, 2, f"list-{number}", how)
        key = tuple(drawn.chosen.tolist())
        counts[key] = counts.get(key, 0) + 1
        stated[key] = float(drawn.propensities.prod())
    weights = np.exp(scores / scores.std())
    for key in permutations(range(4), 2):
        expected = weights[key[0]] / weights.sum() * weights[key[1]] / (weights.sum() - weights[key[0]])
        assert stated[key] == pytest.approx(expected)
        assert abs(counts[key] / n_draws - expected) < 4 * np.sqrt(expected * (1 - expected) / n_draws)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_a_share_of_lists_explores(share: float) -> None:
    n_lists = 5_000
    n_exploring = sum(explores(f"list-{number}", share) for number in range(n_lists))
    assert abs(n_exploring / n_lists - share) <= 4 * np.sqrt(share * (1 - share) / n_lists)


def test_equal_scores_are_drawn_evenly() -> None:
    """There is no spread to divide by."""
    drawn = explore(np.full(4, 3.0), 2, "any", Exploration(head=0.0))
    assert drawn.propensities.tolist() == pytest.approx([1 / 4, 1 / 3])
