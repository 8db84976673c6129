"""Exploration: the tail of a list is sampled, so that items beyond the best ones are shown with a known probability.

The first places stay as ranked. The others are drawn without replacement from a pool of the next best items, item i
with the probability w_i / (sum of w over the items not drawn yet), where w_i = exp(score_i / scale): the model of
Plackett and Luce. The draw sorts log w_i plus Gumbel noise (Kool, van Hoof and Welling, "Stochastic beams and where to
find them", ICML 2019), so that a list costs one sort.

Invariants: a list depends on the recommendation id and its candidates alone, so that it can be computed again. A
propensity is the probability of an item in its place given the items before it; their product is the probability of
the list.
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Exploration:
    """How lists explore.

    Attributes:
        head: The share of a list's places that stay as ranked, 0 to 1; rounded up.
        pool: How many candidates there are for each sampled place.
        temperature: The scale of the scores, in standard deviations of the pool's scores; the higher, the more even are
            the probabilities.
    """

    head: float = 0.5
    pool: float = 5.0
    temperature: float = 1.0

    def n_head(self, n: int) -> int:
        """Return how many of n places stay as ranked."""
        return min(n, int(np.ceil(self.head * n)))

    def n_candidates(self, n: int) -> int:
        """Return how many of the best items a list of n places is drawn from."""
        head = self.n_head(n)
        return head + max(n - head, int(np.ceil(self.pool * (n - head))))


class Explored(NamedTuple):
    """A list that explored: indices of candidates, int64 (n,), and the propensity of each place, float64 (n,)."""

    chosen: NDArray[np.int64]
    propensities: NDArray[np.float64]


def explores(recommendation_id: str, share: float) -> bool:
    """Whether a list is in the share of those that explore, 0 to 1: the same for every reader of its id."""
    return _uniform(recommendation_id) < share


def explore(scores: NDArray[np.float64], n: int, recommendation_id: str, how: Exploration) -> Explored:
    """Sample the tail of a list.

    Args:
        scores: Float64 (m,), the scores of the candidates, best first; `Exploration.n_candidates` or fewer.
        n: The length of the list; it is shorter if there are fewer candidates.
        recommendation_id: Decides the draw.
        how: The head, the pool and the temperature.
    """
    n = min(n, scores.size)
    n_head = how.n_head(n)
    chosen = np.arange(n)
    propensities = np.ones(n)
    pool = scores[n_head:]
    n_tail = n - n_head
    if not n_tail:
        return Explored(chosen, propensities)
    spread = float(pool.std())
    logits = (pool - pool[0]) / (spread * how.temperature) if spread > 0 else np.zeros(pool.size)
    digest = hashlib.sha256(b"explore\0" + recommendation_id.encode()).digest()
    noise = np.random.Generator(np.random.PCG64(int.from_bytes(digest))).gumbel(size=pool.size)
    drawn = np.argsort(-(logits + noise), kind="stable")
    weights = np.exp(logits[drawn])
    # The weight of everything from a place on, summed from the smallest part to the largest.
    left = np.cumsum(weights[::-1])[::-1]
    chosen[n_head:] = n_head + drawn[:n_tail]
    propensities[n_head:] = weights[:n_tail] / left[:n_tail]
    return Explored(chosen, propensities)


def _uniform(text: str) -> float:
    """Return a number from 0 to 1, below 1, that depends on a text alone."""
    digest = hashlib.sha256(b"slice\0" + text.encode()).digest()
    return int.from_bytes(digest[:7]) / 2**56
