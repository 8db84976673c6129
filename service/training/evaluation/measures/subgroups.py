"""Measures by group: users by how active they are, items by how popular (pure).

Invariant: every user and every item is in one group, decided by the training side of a split alone. The groups of
users are thirds of the users who have training interactions, cut at numbers of interactions, so that who has equally
many is in the same group; who has none is light. The groups of items each hold about a third of the training
interactions: the head is the few most popular items, the tail the many rarest ones and those without any.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.training.evaluation.measures.beyond_accuracy import Lists
from service.training.evaluation.measures.per_user import Float64, MeasureName, Tally, error_tallies, ranking_tallies
from service.training.evaluation.measures.relevance import Relevance
from service.training.evaluation.top_n_lists import NO_ITEM
from service.training.interactions import Interactions

USERS: Final = ("light", "medium", "heavy")
ITEMS: Final = ("head", "middle", "tail")
FAMILIES: Final = ("ndcg", "recall")
Groups = NDArray[np.int8]


def user_groups(train: Interactions) -> Groups:
    """Return the group of each user, as an index into `USERS`: int8 (n_users,)."""
    lengths = np.bincount(train.user_rows, minlength=len(train.users))
    active = np.sort(lengths[lengths > 0])
    cuts = active[[(active.size - 1) // 3, 2 * (active.size - 1) // 3]] if active.size else np.zeros(2)
    return np.searchsorted(cuts, lengths, side="left").astype(np.int8)


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
    errors_: dict[str, Tally], ranked_: dict[str, Tally], groups: Groups, k: int
) -> dict[str, dict[str, Any]]:
    """Return the measures of each group of users.

    Args:
        errors_: The errors of predicted ratings, by name; empty where none are predicted.
        ranked_: The ranking measures, by name.
        groups: Int8 (n_users,), see `user_groups`.
        k: The length of the lists that count.

    Returns:
        By group: "n", the judged users, "rmse" where there are errors, "ndcg@k", "recall@k"; None over nobody.
    """
    chosen = {name: tally for name, tally in errors_.items() if name == "rmse"}
    chosen |= {name: ranked_[name] for name in _names(k) if name in ranked_}
    result = {}
    for index, group in enumerate(USERS):
        values: dict[str, Any] = {name: tally.value(groups[tally.user_rows] == index) for name, tally in chosen.items()}
        judged = next(iter(chosen.values())).user_rows if chosen else np.empty(0, dtype=np.int64)
        result[group] = {"n": int(np.count_nonzero(groups[judged] == index)), **values}
    return result


def by_item_group(
    predicted: Float64 | None, test: Interactions, lists: Lists, relevance: Relevance, groups: Groups, k: int
) -> dict[str, dict[str, Any]]:
    """Return the measures of each group of items.

    Args:
        predicted: Float64 (n,), the predicted ratings of `test`; None where none are predicted.
        test: The held-out side.
        lists: Int32 (m, at least k), one per user of `relevance`.
        relevance: The judged users and their relevant items.
        groups: Int8 (n_items,), see `item_groups`.
        k: The length of the lists that count.

    Returns:
        By group: "n", the items in it, "rmse" of their held-out ratings, and "ndcg@k" and "recall@k" as if only they
        were relevant, over the users to whom at least one of them is, and "share_of_lists@k", the share of the places
        of the lists that they take; None over nothing.
    """
    result = {}
    cut = lists[:, :k]
    shown = groups[cut[cut != NO_ITEM]]
    for index, group in enumerate(ITEMS):
        values: dict[str, Any] = {"n": int(np.count_nonzero(groups == index))}
        if predicted is not None:
            chosen = np.flatnonzero(groups[test.item_rows] == index)
            values["rmse"] = error_tallies(predicted[chosen], test.take(chosen))["rmse"].value()
        rest, is_kept = relevance.of_items(groups == index)
        tallies = ranking_tallies([MeasureName(family, k) for family in FAMILIES], lists[is_kept], rest)
        values |= {name: tally.value() for name, tally in tallies.items()}
        values[f"share_of_lists@{k}"] = float(np.mean(shown == index)) if shown.size else None
        result[group] = values
    return result


def _names(k: int) -> list[str]:
    return [str(MeasureName(family, k)) for family in FAMILIES]
