"""Personal lists of a model: the best items by score, re-ranked if the model has a ranker.

Invariant: a list is the same to the last bit whether it is made by itself, in a batch, or by `service.lists.pipeline`.
"""

from collections.abc import Sequence

from service.models.fold_in.representation import UserRepresentation
from service.models.neighbourhood import Scores
from service.models.networks.network import Ranker
from service.models.ranking import scoring
from service.models.ranking.reranking import rerank, whole_blocks
from service.models.ranking.scoring import Ranking, Rows, TopNRequest
from service.models.snapshot import ModelSnapshot


def personal(snapshot: ModelSnapshot, requests: Sequence[TopNRequest]) -> list[Ranking]:
    """Rank the unseen items of each request's user.

    Returns:
        One ranking per request: places offset to offset + n, independent of the other requests.
    """
    ranker = snapshot.ranker
    if ranker is None:
        return scoring.personal(snapshot, requests)
    ends = [whole_blocks(request.offset + request.n, ranker.n_candidates) for request in requests]
    retrieved = scoring.personal(
        snapshot, [request._replace(n=end, offset=0) for request, end in zip(requests, ends, strict=True)]
    )
    return [_page(snapshot, ranker, request, ranking) for request, ranking in zip(requests, retrieved, strict=True)]


def personal_among(snapshot: ModelSnapshot, request: TopNRequest, include: Rows) -> Ranking:
    """Rank the items of `include`, int64 and unique, for a user."""
    ranker = snapshot.ranker
    if ranker is None:
        return scoring.personal_among(snapshot, request, include)
    retrieved = scoring.personal_among(snapshot, request._replace(n=include.size, offset=0), include)
    return _page(snapshot, ranker, request, retrieved)


def ranker_scores(snapshot: ModelSnapshot, ranker: Ranker, user: UserRepresentation, rows: Rows) -> Scores:
    """Score items by the ranker of a model: float64 (m,)."""
    return ranker.scores(user.factors, snapshot.item_factors.take(rows, axis=0))


def _page(snapshot: ModelSnapshot, ranker: Ranker, request: TopNRequest, retrieved: Ranking) -> Ranking:
    """Re-rank the best items of a request's user, and return the places that it asks for."""
    user = request.user or snapshot.trained_user(request.user_row)
    rows, scores = rerank(
        retrieved.rows,
        lambda block: ranker_scores(snapshot, ranker, user, block),
        snapshot.popular_ranks,
        ranker.n_candidates,
    )
    page = slice(request.offset, request.offset + request.n)
    return Ranking(rows[page], scores[page], scoring.personal_flags(snapshot, request, rows[page]))
