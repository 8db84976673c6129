"""Which kind of model data can teach: without ratings a model that predicts ratings learns noise (pure).

On five random folds of MovieLens 1M without its ratings svd lists with an NDCG@10 of .001, popularity with one of .20,
and ials with one of .43.
"""

from typing import Final

from service.errors import DataError
from service.training.algorithms.registry import Candidate
from service.training.interactions import Interactions

FOR_RATINGS: Final = "svd"
# Of those that rank it has neither a limit of items nor of users, and is fitted in seconds; docs/evaluation.md.
FOR_LISTS: Final = "ials"
_MOSTLY: Final = 0.5
_RANKING: Final = "ials, softmax, ease, item_knn, popularity"


def default_algorithm(data: Interactions) -> str:
    """Return the algorithm to fit where none is named: one that predicts ratings, if there are ratings to learn from.

    There are if at least half of the interactions have one, and these are not all the same.
    """
    return FOR_RATINGS if why_not_ratings(data) is None else FOR_LISTS


def why_not_ratings(data: Interactions) -> str | None:
    """Return what keeps ratings from being learnt, as the end of a sentence about the data; None if nothing does."""
    share = data.rated_share
    if not share:
        return "has no ratings"
    if share < _MOSTLY:
        return f"has ratings for {share:.0%} of its interactions only"
    if data.all_equal:
        return f"has the rating {data.ratings[0]:g} throughout" if len(data) else "has no ratings"
    return None


def require_suitable(candidate: Candidate, data: Interactions) -> str | None:
    """Check that an algorithm can learn something from data.

    Args:
        candidate: What a person named.
        data: What it is to learn from.

    Returns:
        What to warn of, as a sentence; None if all is well.

    Raises:
        DataError: It predicts ratings, and there are none at all.
    """
    why = why_not_ratings(data) if candidate.kind == "rating" else None
    if why is None:
        return None
    if not data.rated_share:
        raise DataError(
            f"{data.report.source} {why}, and {candidate.name} predicts ratings, so that its lists would be noise: "
            f"use {FOR_LISTS}, which train and up choose by themselves, or another that ranks: {_RANKING}"
        )
    return (
        f"{data.report.source} {why}, so that {candidate.name}, which predicts ratings, learns little from it; "
        f"lists come from models that rank: {_RANKING}."
    )
