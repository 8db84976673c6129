"""The candidates of one user's list, as one service asks another for them, and as either of them finds them (pure).

Invariant: an answer depends on the query, the model and the item catalogue alone, so that a list can be made again. Of
the same model and catalogue it holds the best of the list that one process would make.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.lists import retrieval
from service.lists.boosts import BoostFactors
from service.lists.candidates import Candidates
from service.lists.filters.masks import FilterMask
from service.lists.item_scores import ListUser, of_user
from service.lists.list_request import Boost, ListRequest
from service.lists.pipeline import ListModel, mask_of, n_retrieved, page_of, pinned_rows, rows_of, shown_factors
from service.lists.reduced import REDUCED
from service.lists.request_user import request_user
from service.models.fold_in.representation import UserRepresentation
from service.models.ranking import scoring
from service.models.ranking.scoring import NO_ROWS, Ranking, Rows

# Items that the ranking service may have to leave out although the other one did not know it.
_MARGIN: Final = 16
# So many popular items stand in for the candidates of a service that does not answer.
_POPULAR: Final = 500


class CandidateQuery(NamedTuple):
    """The best items for a user's vector.

    Attributes:
        vector: Float32 (k,), of the model's embedding space.
        constant: What is added to every score; it matters to boosts alone.
        n: How many items at most.
        at_s: When the items must be available, in Unix seconds.
        exclude: Items to leave out; unknown ones are ignored.
        filter: What the items' attributes must be; None for any.
        boosts: Factors of scores, all of which apply.
        factors: Further factors of single items.
    """

    vector: NDArray[np.float32]
    constant: float
    n: int
    at_s: float
    exclude: Sequence[str] = ()
    filter: str | None = None
    boosts: Sequence[Boost] = ()
    factors: Mapping[str, float] = {}


def query_of(model: ListModel, request: ListRequest, user: ListUser | None, now_s: float) -> CandidateQuery | None:
    """Return what a list needs of another service; None if the model can make it without.

    Only the personal list of a user asks for items of the whole catalogue by a vector.

    Args:
        model: The model that the list is made from.
        request: What is asked for.
        user: The user, without the session and the features of the request.
        now_s: The time of the request.

    Raises:
        Invalid: A filter or the page token is wrong.
    """
    snapshot = model.snapshot
    if (
        not snapshot.n_factors
        or request.include is not None
        or request.similar_to is not None
        or request.seeds
        or request.window is not None
        or request.level in REDUCED
    ):
        return None
    if request.session or request.user_features:
        user = request_user(snapshot, model.catalogue, user, request, now_s)
    if user is None or not user.is_known:
        return None
    # Before another service is asked, so that a wrong filter is refused here.
    for index, boost in enumerate(request.boosts):
        mask_of(model, boost.filter, f"boosts[{index}].filter")
    if request.filter is not None:
        mask_of(model, request.filter, "filter")
    representation = user.representation or snapshot.trained_user(user.row or 0)
    id_of = snapshot.items.id_of
    seen = [id_of[row] for row in np.unique(user.seen_rows(snapshot)).tolist()]
    factors = shown_factors(request, user)
    pins = pinned_rows(model, request, page_of(request), now_s)
    return CandidateQuery(
        representation.factors,
        representation.constant,
        n_retrieved(snapshot, request) + _MARGIN,
        now_s,
        (*request.exclude, *(id_of[pin.row] for pin in pins), *seen),
        request.filter,
        request.boosts,
        {id_of[row]: factor for row, factor in factors.items()},
    )


def find(model: ListModel, query: CandidateQuery) -> Ranking:
    """Answer a query: the best items by the product of vector and factors, the biases and the boosts.

    Raises:
        Invalid: A filter is wrong, or the vector has another number of factors.
    """
    snapshot = model.snapshot
    user = UserRepresentation(query.vector, query.constant, NO_ROWS.astype(np.int32))
    candidates = _candidates(model, query)
    boosts = _boosts(model, query)
    if boosts is None:
        rows = retrieval.retrieved_rows(snapshot, user, candidates, query.n)
        return Ranking(rows, scoring.exact_scores(snapshot, 0, rows, user))
    scores = of_user(snapshot, ListUser(representation=user))
    return retrieval.by_exact_score(scores, candidates, boosts, snapshot.popular_ranks, query.n)


def popular_rows(model: ListModel, query: CandidateQuery) -> Rows:
    """Return popular items instead of the answer, int64: what a list is made from while no other service answers."""
    candidates = _candidates(model, query)
    ranking = scoring.popular(
        model.snapshot, max(_POPULAR, query.n), exclude=candidates.barred().astype(np.int64), include=candidates.rows()
    )
    return ranking.rows


def _candidates(model: ListModel, query: CandidateQuery) -> Candidates:
    return Candidates(
        len(model.snapshot.items),
        filter=None if query.filter is None else mask_of(model, query.filter, "filter"),
        exclude=rows_of(model.snapshot, query.exclude),
        hidden=model.catalogue.unavailable_rows(query.at_s),
    )


def _boosts(model: ListModel, query: CandidateQuery) -> BoostFactors | None:
    if not query.boosts and not query.factors:
        return None
    masks: list[tuple[FilterMask, float]] = [
        (mask_of(model, boost.filter, f"boosts[{index}].filter"), boost.factor)
        for index, boost in enumerate(query.boosts)
    ]
    row_of = model.snapshot.items.row_of
    of_rows = {row_of[item_id]: factor for item_id, factor in query.factors.items() if item_id in row_of}
    return BoostFactors(len(model.snapshot.items), masks, of_rows)
