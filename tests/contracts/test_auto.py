"""What `auto` serves is never worse than popularity, on data that it has not seen, whatever the data is like."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

from service.training.evaluation import splits
from service.training.evaluation.measures.relevance import relevant_items
from service.training.evaluation.top_n_lists import top_n_lists
from service.training.hold_out.list_quality import quality
from service.training.hold_out.measures import popularity_quality
from service.training.hold_out.split import HoldOut, hold_out
from service.training.interactions import Interactions, no_progress
from service.training.selection.measured_choice import of_best
from tests.support.interactions import rated

_DAY_S: Final = 86_400
Draw = Callable[[np.random.Generator], Interactions]


def _dense(rng: np.random.Generator) -> Interactions:
    """Groups of users with items of their own, and half of the items with someone."""
    return _drawn(rng, 150, 60, 30, lambda user: np.where(np.arange(60) % 3 == user % 3, 6.0, 1.0))


def _sparse(rng: np.random.Generator) -> Interactions:
    """Purchases: five each, of many items with a long tail, most of them of the user's kind."""

    def weights(user: int) -> NDArray[np.float64]:
        return np.where(np.arange(300) % 10 == user % 10, 60.0, 1.0) * _tail(300)

    return _drawn(rng, 800, 300, 5, weights)


def _without_structure(rng: np.random.Generator) -> Interactions:
    """Everyone draws from the same popularity: nothing can be learnt but that."""
    return _drawn(rng, 400, 200, 12, lambda _: _tail(200))


def _uniform(rng: np.random.Generator) -> Interactions:
    """Not even popularity can be learnt."""
    return _drawn(rng, 300, 100, 10, lambda _: np.ones(100))


def _drifting(rng: np.random.Generator) -> Interactions:
    """Every month has items of its own, and users stay for a few weeks."""
    rows, times = [], []
    for user in range(500):
        arrived = rng.random() * 330
        for _ in range(10):
            day = arrived + rng.random() * 30
            rows.append((user, int(day / 30) * 15 + int(15 * rng.random() ** 2), 1.0))
            times.append(int(day * _DAY_S))
    return rated_once(rows, times)


def _tiny(rng: np.random.Generator) -> Interactions:
    return _drawn(rng, 6, 8, 3, lambda _: np.ones(8))


def _tail(n: int) -> NDArray[np.float64]:
    return np.asarray((1.0 + np.arange(n)) ** -0.8, dtype=np.float64)


def _drawn(
    rng: np.random.Generator, n_users: int, n_items: int, n_each: int, weights_of: Callable[[int], NDArray[np.float64]]
) -> Interactions:
    rows, times = [], []
    for user in range(n_users):
        weights = weights_of(user)
        items = rng.choice(n_items, n_each, replace=False, p=weights / weights.sum())
        rows += [(user, int(item), 1.0 + int(item) % 5) for item in items]
        times += sorted(rng.integers(0, 1000 * _DAY_S, n_each).tolist())
    return rated_once(rows, times, n_items)


def rated_once(rows: list[tuple[int, int, float]], times: list[int], n_items: int | None = None) -> Interactions:
    """Return the first interaction of each pair."""
    first = {(user, item): place for place, (user, item, _) in reversed(list(enumerate(rows)))}
    places = sorted(first.values())
    return rated([rows[place] for place in places], times=[times[place] for place in places], n_items=n_items)


@pytest.mark.parametrize("draw", [_dense, _sparse, _without_structure, _uniform, _drifting, _tiny])
@pytest.mark.parametrize("split", ["per user", "one moment", "random"])
def test_it_is_never_worse_than_popularity(draw: Callable[[np.random.Generator], Interactions], split: str) -> None:
    """On the youngest fifth of each user, the youngest fifth of all, and a random fifth without times.

    Two standard errors of the difference are allowed for chance.
    """
    data = draw(np.random.default_rng(0))
    assert data.timestamps is not None
    if split == "per user":
        sides = splits.latest_share_of_users(data.user_rows, data.timestamps, 0.2)
    elif split == "one moment":
        sides = splits.latest_share(data.timestamps, 0.2)
    else:
        sides = next(splits.k_fold(len(data), 5, np.random.default_rng(1)))
    train, test = (data.take(side) for side in sides)
    if split == "random":
        train = replace(train, timestamps=None)
    held_out = hold_out(train, np.random.default_rng(2))
    chosen = of_best(train, held_out, 300.0, np.random.SeedSequence(3), no_progress)
    candidate = chosen.candidate
    snapshot = candidate.algorithm.fit(train, candidate.config, np.random.default_rng(4), no_progress)
    relevance = relevant_items(test)
    own = quality(partial(top_n_lists, snapshot), relevance)
    popular = popularity_quality(HoldOut(train, test, sides[1], "random"), relevance)
    assert own.standard_errors_above(popular) > -2
    if draw in {_dense, _sparse} and split == "per user":
        assert own.ndcg > 1.2 * popular.ndcg
