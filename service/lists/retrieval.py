"""The stages that choose the items of a list: the best candidates by score, then their order by the ranker of a model.

Without a ranker the first stage orders the list, too. Exact scores decide both; approximate ones only keep the first
stage from computing an exact score of every item.
"""

from typing import Final

import numpy as np

from service.lists.boosts import BoostFactors
from service.lists.candidates import Candidates
from service.lists.item_scores import ItemScores, ListUser, of_user
from service.models.fold_in.representation import UserRepresentation
from service.models.neighbourhood import Scores
from service.models.ranking import scoring
from service.models.ranking.reranking import rerank, whole_blocks
from service.models.ranking.scoring import Ranking, Rows
from service.models.snapshot import ModelSnapshot

# So many exact scores cost less than a choice by approximate ones.
_EXACT_LIMIT: Final = 500


def best(scores: ItemScores, candidates: Candidates, boosts: BoostFactors | None, ranks: Rows, count: int) -> Ranking:
    """Return the best candidates of a list in its order, by boosted scores.

    Args:
        scores: The scores of the list.
        candidates: The items that the list may contain.
        boosts: Factors of the scores of both stages; None for 1.
        ranks: Int64 (n_items,), breaks ties: the smaller comes first.
        count: The length of the list.
    """
    if scores.reranked is None:
        return by_exact_score(scores, candidates, boosts, ranks, count)
    new_scores = scores.reranked

    def boosted(rows: Rows) -> Scores:
        return new_scores(rows) if boosts is None else boosts.boosted(rows, new_scores(rows))

    retrieved = by_exact_score(scores, candidates, boosts, ranks, whole_blocks(count, scores.n_candidates))
    rows, found = rerank(retrieved.rows, boosted, ranks, scores.n_candidates)
    return Ranking(rows[:count], found[:count])


def retrieved_rows(snapshot: ModelSnapshot, user: UserRepresentation, candidates: Candidates, n: int) -> Rows:
    """Return the n best candidates of a user by the product of factors and the biases: int64, best first.

    Args:
        snapshot: The model, which has factors.
        user: The user; its `seen` items are left out only if `candidates` bars them.
        candidates: The items that may be chosen.
        n: How many are wanted; fewer if there are no more.
    """
    return by_exact_score(
        of_user(snapshot, ListUser(representation=user)), candidates, None, snapshot.popular_ranks, n
    ).rows


def by_exact_score(
    scores: ItemScores, candidates: Candidates, boosts: BoostFactors | None, ranks: Rows, count: int
) -> Ranking:
    """Return the best candidates by boosted exact score."""

    def exact(rows: Rows) -> Scores:
        return scores.exact(rows) if boosts is None else boosts.boosted(rows, scores.exact(rows))

    if scores.indexed is not None and boosts is None and candidates.include is None and candidates.retrieved is None:
        mask = None if candidates.filter is None else candidates.filter.mask
        found_best = scores.indexed(candidates.barred(), count, mask)
        if found_best is not None:
            return Ranking(*found_best)
    rows, barred = candidates.rows(), candidates.barred()
    if rows is not None and rows.size <= _EXACT_LIMIT:
        rows = rows[~np.isin(rows, barred)]
        found = exact(rows)
        is_scored = np.isfinite(found)
        return scoring.sorted_page(rows[is_scored], found[is_scored], ranks, 0, count)
    approximate, bound = scores.approximate(rows), scores.bound
    if boosts is not None:
        approximate, bound = boosts.upper_bounds(approximate.astype(np.float64) + bound, rows)
    if rows is None:
        approximate[barred] = -np.inf
        return scoring.top_n(approximate, bound, exact, ranks, 0, count)
    # Only the rows asked for are selected from: a selection among many -inf takes fifty times as long.
    places = np.searchsorted(rows, barred)
    places = places[rows.take(places, mode="clip") == barred]
    approximate[places] = -np.inf
    among = rows
    ranking = scoring.top_n(approximate, bound, lambda chosen: exact(among[chosen]), ranks.take(rows), 0, count)
    return Ranking(rows[ranking.rows], ranking.scores)
