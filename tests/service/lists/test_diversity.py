"""Lists by maximal marginal relevance agree with the plain definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.lists.diversity import diversify, pool_size


def by_definition(scores: np.ndarray, cosines: np.ndarray, n: int, diversity: float) -> list[int]:
    spread = scores[0] - scores[-1]
    relevance = (scores - scores[-1]) / spread if spread > 0 else np.ones(scores.size)
    chosen: list[int] = [0]
    while len(chosen) < min(n, scores.size):
        rest = [at for at in range(scores.size) if at not in chosen]
        values = [(1 - diversity) * relevance[at] - diversity * cosines[at, chosen].max() for at in rest]
        chosen.append(rest[int(np.argmax(values))])
    return chosen


@given(seed=st.integers(0, 500), m=st.integers(1, 40), n=st.integers(1, 15), diversity=st.floats(0.01, 1))
def test_a_diverse_list_is_the_greedy_one(seed: int, m: int, n: int, diversity: float) -> None:
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.normal(size=m))[::-1]
    vectors = rng.normal(size=(m, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    got = diversify(scores, cosines.__getitem__, n, diversity).tolist()
    assert got == by_definition(scores, cosines, n, diversity)
    assert got[: n // 2] == diversify(scores, cosines.__getitem__, n // 2, diversity).tolist()


def test_without_diversity_a_list_keeps_the_order_of_scores() -> None:
    def refuse(_: int) -> np.ndarray:
        raise AssertionError("A list by scores needs no similarity.")

    assert diversify(np.array([3.0, 2.0, 1.0]), refuse, 2, 0.0).tolist() == [0, 1]


@pytest.mark.parametrize("scores", [[5.0, 4.9, 4.8, 1.0], [1.0, 1.0, 1.0, 1.0]])
def test_diversity_changes_which_items_are_in_a_list(scores: list[float]) -> None:
    """Three copies of one item and another item: the other one comes second."""
    cosines = np.ones((4, 4))
    cosines[3, :3] = cosines[:3, 3] = 0.0
    assert diversify(np.array(scores), cosines.__getitem__, 2, 0.6).tolist() == [0, 3]


def test_a_pool_is_longer_than_its_list() -> None:
    assert [pool_size(n) for n in (1, 10, 100, 500)] == [100, 100, 800, 2000]
