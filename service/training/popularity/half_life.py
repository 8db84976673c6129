"""The half-life of popularity that suits data best: the one whose lists hold most of what came next.

Some catalogues go stale in weeks and some hardly ever, so that no constant suits both. At each of three cuts of time
the later interactions are held out; a half-life makes a list from the earlier ones, without what a user has seen. The
half-life with the largest NDCG@10, a mean over users with held-out interactions and over the cuts, is chosen. Of nearly
equal ones it is the longest, which counts most interactions.

Invariant: the choice depends on the data alone.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.training.assembly import history
from service.training.evaluation import splits
from service.training.evaluation.measures.ranking import ndcg
from service.training.evaluation.measures.relevance import relevant_items
from service.training.evaluation.top_n_lists import NO_ITEM
from service.training.interactions import Int64, Interactions
from service.training.popularity.counts import decayed

# Longest first.
CANDIDATES_DAYS: Final = (float("inf"), 3650.0, 1095.0, 365.0, 180.0, 90.0, 30.0, 7.0)
_SHARES: Final = (0.03, 0.1, 0.2)
_LENGTH: Final = 10
_MOST_USERS: Final = 500
_MOST_INTERACTIONS: Final = 2_000_000
_LEAST_INTERACTIONS: Final = 1000
# A shorter half-life must be better by this factor.
_BETTER: Final = 1.01


def best_half_life_days(data: Interactions) -> float:
    """Choose one of `CANDIDATES_DAYS`; infinity, which is no decay, for data without times or with few interactions."""
    if data.timestamps is None or len(data) < _LEAST_INTERACTIONS:
        return CANDIDATES_DAYS[0]
    if len(data) > _MOST_INTERACTIONS:
        data = data.take(np.arange(0, len(data), -(-len(data) // _MOST_INTERACTIONS)))
    measured = np.mean([_measured(data, share) for share in _SHARES], axis=0)
    chosen = 0
    for place, value in enumerate(measured):
        if value > _BETTER * measured[chosen]:
            chosen = place
    return CANDIDATES_DAYS[chosen]


def _measured(data: Interactions, share: float) -> NDArray[np.float64]:
    """Return the NDCG@10 of each candidate when the latest share is held out: float64 (n_candidates,)."""
    times_s = np.zeros(len(data), dtype=np.int64) if data.timestamps is None else data.timestamps
    train, test = (data.take(side) for side in splits.latest_share(times_s, share))
    judged = relevant_items(test).sample(_MOST_USERS, np.random.default_rng(0))
    seen = history(train)
    users_seen = [seen.indices[seen.indptr[row] : seen.indptr[row + 1]] for row in judged.user_rows.tolist()]
    values = []
    for half_life_days in CANDIDATES_DAYS:
        order = np.argsort(-decayed(train, half_life_days), kind="stable")
        lists = _lists_without(order, users_seen)
        values.append(float(ndcg(judged.hits(lists), judged.counts).mean()))
    return np.array(values)


def _lists_without(order: Int64, users_seen: list[NDArray[np.int32]]) -> NDArray[np.int64]:
    """Return the first items of an order that each user has not seen: int64 (n_users, 10), padded with `NO_ITEM`."""
    lists = np.full((len(users_seen), _LENGTH), NO_ITEM, dtype=np.int64)
    is_seen = np.zeros(order.size, dtype=bool)
    for own, seen in zip(lists, users_seen, strict=True):
        is_seen[seen] = True
        head = order[: _LENGTH + seen.size]
        listed = head[~is_seen[head]][:_LENGTH]
        own[: listed.size] = listed
        is_seen[seen] = False
    return lists
