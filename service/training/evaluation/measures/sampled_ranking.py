"""Ranking measures among sampled items, as many publications report them; computed only on request.

They are not those of the whole catalogue and need not even order models alike (Krichene and Rendle, "On sampled metrics
for item recommendation", KDD 2020). They serve to compare with published figures, and their names say that they are
sampled: sampled100_ndcg@10.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from service.models.ranking.personal_lists import personal_among
from service.models.ranking.scoring import TopNRequest
from service.models.snapshot import ModelSnapshot
from service.training.evaluation.measures.beyond_accuracy import Lists
from service.training.evaluation.measures.per_user import MeasureName, Tally, ranking_tallies
from service.training.evaluation.measures.relevance import Relevance
from service.training.evaluation.top_n_lists import NO_ITEM
from service.training.interactions import Interactions

_FAMILIES: Final = ("hit_rate", "ndcg", "mrr", "recall")


def sampled_tallies(lists: Lists, relevance: Relevance, ks: Sequence[int], n: int) -> dict[str, Tally]:
    """Return the measures by user of lists, int32 (m, at least the largest k), ranked among n sampled items."""
    names = [MeasureName(family, k) for family in _FAMILIES for k in ks]
    return {f"sampled{n}_{name}": tally for name, tally in ranking_tallies(names, lists, relevance).items()}


def sample_negatives(train: Interactions, relevance: Relevance, n: int, rng: np.random.Generator) -> Lists:
    """Sample n items that each judged user has not seen in training and that are not relevant.

    Returns:
        int32 (m, n), item rows, uniformly without replacement; -1 at the end where a user has fewer.
    """
    order = np.argsort(train.user_rows, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(train.user_rows, minlength=len(train.users)))])
    ends = np.cumsum(relevance.counts)
    sampled = np.full((len(relevance), n), NO_ITEM, dtype=np.int32)
    for index, user_row in enumerate(relevance.user_rows.tolist()):
        seen = train.item_rows[order[starts[user_row] : starts[user_row + 1]]]
        relevant = relevance.item_rows[ends[index] - relevance.counts[index] : ends[index]]
        excluded = np.union1d(seen, relevant)
        n_free = relevance.n_items - excluded.size
        ranks = rng.choice(n_free, size=min(n, n_free), replace=False, shuffle=False)
        # The free item of rank r comes after every excluded item with at most r free items before it.
        sampled[index, : ranks.size] = ranks + np.searchsorted(excluded - np.arange(excluded.size), ranks, side="right")
    return sampled


def rank_among(snapshot: ModelSnapshot, relevance: Relevance, negatives: Lists, n: int) -> Lists:
    """Rank each user's relevant items among those of `sample_negatives`.

    Returns:
        int32 (m, n), item rows, best first; -1 where a list has ended.
    """
    lists = np.full((len(relevance), n), NO_ITEM, dtype=np.int32)
    ends = np.cumsum(relevance.counts)
    for index, user_row in enumerate(relevance.user_rows.tolist()):
        relevant = relevance.item_rows[ends[index] - relevance.counts[index] : ends[index]]
        others = negatives[index][negatives[index] != NO_ITEM]
        rows = personal_among(snapshot, TopNRequest(user_row, n), np.concatenate([relevant, others])).rows
        lists[index, : rows.size] = rows
    return lists
