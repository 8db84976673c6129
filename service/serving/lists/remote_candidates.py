"""The candidates of a list from another service, and popular ones while that gives no answer."""

from aiohttp import hdrs, web

from service.candidates.query import popular_rows, query_of
from service.candidates.query_wire import body_of, is_within_limits
from service.errors import CandidatesUnavailable
from service.lists.item_scores import ListUser
from service.lists.list_request import CandidateSource, ListRequest
from service.lists.pipeline import ListModel, rows_of
from service.models.ranking.scoring import Rows
from service.security.gate import API_KEY_HEADER
from service.serving.replica.context import ReplicaContext

# The caller's own key counts at the candidates service, too.
_CREDENTIALS = (API_KEY_HEADER, hdrs.AUTHORIZATION, hdrs.ORIGIN)
# The share of a list's deadline that candidates may take.
_DEADLINE_SHARE = 0.5
_MS_PER_S = 1000


async def retrieved(
    request: web.Request,
    context: ReplicaContext,
    model: ListModel,
    list_request: ListRequest,
    user: ListUser | None,
    now_s: float,
) -> tuple[ListRequest, Rows | None]:
    """Ask the candidates service for the candidates of a list.

    If no answer comes in time, popular items are the candidates, so that a list is made in any case.

    Returns:
        The request with the source of its candidates, and their rows, int64. The request unchanged and None if this
        replica finds candidates by itself: the list needs no other service, or asks for more than its route takes.

    Raises:
        Invalid: A filter or the page token of the request is wrong.
    """
    client = context.candidates
    query = None if client is None else query_of(model, list_request, user, now_s)
    if client is None or query is None:
        return list_request, None
    body = body_of(query, model.snapshot.embedding_space)
    if not is_within_limits(query, body, context.config.server.body_limit_bytes):
        # The candidates service would refuse the query each time. This replica has all items, too, and scores them.
        return list_request, None
    headers: dict[str, str] = {name: request.headers[name] for name in _CREDENTIALS if name in request.headers}
    deadline_ms = list_request.deadline_ms
    timeout_s = None if deadline_ms is None else _DEADLINE_SHARE * deadline_ms / _MS_PER_S
    try:
        answer = await client.ask(body, headers, timeout_s)
    except CandidatesUnavailable:
        return list_request._replace(candidates=CandidateSource()), popular_rows(model, query)
    source = CandidateSource(answer.model, answer.watermark)
    return list_request._replace(candidates=source), rows_of(model.snapshot, answer.item_ids)
