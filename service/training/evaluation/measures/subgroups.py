"""Measures by subgroup: users by activity, items by popularity (pure).

Invariant: every user and item is in one group, which the training side of a split alone decides. User groups are thirds
of the users with training interactions, divided at numbers of interactions, so that equally active users share a group;
users without any are "light". Item groups hold about a third of the training interactions each: "head" the few most
popular items, "tail" the many rarest ones and those without any.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.training.evaluation.measures.beyond_accuracy import Lists
from service.training.evaluation.measures.per_user import MeasureName, Tally, error_tallies, ranking_tallies
from service.training.evaluation.measures.relevance import Relevance
from service.training.evaluation.top_n_lists import NO_ITEM
from service.training.interactions import Float64, Interactions

USERS: Final = ("light", "medium", "heavy")
ITEMS: Final = ("head", "middle", "tail")
_FAMILIES: Final = ("ndcg", "recall")
Groups = NDArray[np.int8]


def user_groups(train: Interactions) -> Groups:
    """Return the group of each user, as an index into `USERS`: int8 (n_users,)."""
    lengths = np.bincount(train.user_rows, minlength=len(train.users))
    active = np.sort(lengths[lengths > 0])
    bounds = active[[(active.size - 1) // 3, 2 * (active.size - 1) // 3]] if active.size else np.zeros(2)
    return np.searchsorted(bounds, lengths, side="left").astype(np.int8)


def item_groups(train: Interactions) -> Groups:
    """Return the group of each item, as an index into `ITEMS`: int8 (n_items,)."""
    counts = np.bincount(train.item_rows, minlength=len(train.items))
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    groups = np.empty(counts.size, dtype=np.int8)
    groups[order] = np.minimum(2, 3 * before // max(1, int(counts.sum())))
    groups[counts == 0] = 2
    return groups


def by_user_group(
    errors: dict[str, Tally], rankings: dict[str, Tally], groups: Groups, k: int
) -> dict[str, dict[str, Any]]:
    """Return the measures of each user group, from the errors of predicted ratings, if any, and the ranking measures.

    Returns:
        By group: "n", the judged users, "rmse" if there are errors, "ndcg@k", "recall@k"; None without a user.
    """
    chosen = {name: tally for name, tally in errors.items() if name == "rmse"}
    names = [str(MeasureName(family, k)) for family in _FAMILIES]
    chosen |= {name: rankings[name] for name in names if name in rankings}
    result = {}
    for index, group in enumerate(USERS):
        values: dict[str, Any] = {name: tally.value(groups[tally.user_rows] == index) for name, tally in chosen.items()}
        judged = next(iter(chosen.values())).user_rows if chosen else np.empty(0, dtype=np.int64)
        result[group] = {"n": int(np.count_nonzero(groups[judged] == index)), **values}
    return result


def by_item_group(
    predicted: Float64 | None, test: Interactions, lists: Lists, relevance: Relevance, groups: Groups, k: int
) -> dict[str, dict[str, Any]]:
    """Return the measures of each item group: of predicted ratings of `test`, if any, and of lists.

    Returns:
        By group: "n", its items; "rmse" of their held-out ratings; "ndcg@k" and "recall@k" if only they were relevant,
        over the users with a relevant one; "share_of_lists@k", their share of the places of the lists. None where the
        denominator is 0.
    """
    result = {}
    top_k = lists[:, :k]
    listed = groups[top_k[top_k != NO_ITEM]]
    for index, group in enumerate(ITEMS):
        values: dict[str, Any] = {"n": int(np.count_nonzero(groups == index))}
        if predicted is not None:
            chosen = np.flatnonzero(groups[test.item_rows] == index)
            values["rmse"] = error_tallies(predicted[chosen], test.take(chosen))["rmse"].value()
        rest, is_kept = relevance.keep_items(groups == index)
        tallies = ranking_tallies([MeasureName(family, k) for family in _FAMILIES], lists[is_kept], rest)
        values |= {name: tally.value() for name, tally in tallies.items()}
        values[f"share_of_lists@{k}"] = float(np.mean(listed == index)) if listed.size else None
        result[group] = values
    return result
