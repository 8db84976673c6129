"""Lists from a request to their answer: the user, the model, the list, the served event.

Invariant: a list takes snapshot and catalogue once, and never waits for telemetry.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from aiohttp import web

from service.api import wire
from service.errors import Invalid, NotFound
from service.lists import pipeline
from service.lists.exploration import Exploration, explores
from service.lists.item_scores import ListUser
from service.lists.list_request import ListRequest
from service.lists.pipeline import ListModel
from service.lists.popular_window import window_s
from service.lists.reduced import REDUCED, reduced_ranking
from service.live.live_users import list_user
from service.models.ranking import scoring
from service.models.ranking.scoring import Ranking, TopNRequest
from service.models.snapshot import ModelSnapshot
from service.serving.http import request_inputs
from service.serving.lists import remote_candidates
from service.serving.lists.ranked_list import RankedList
from service.serving.replica.context import CONTEXT, ReplicaContext
from service.serving.replica.known_users import user_row_of
from telemetry.ids import uuid7

# Lists of one request that are made in one turn of the event loop.
_TOGETHER: Final = 16


class PreparedList(NamedTuple):
    """A list that was made and is not yet recorded as served.

    Attributes:
        ranked: The list.
        started_s: When it was begun, by `time.perf_counter`.
        recommendation_id: The id of its answer and of its event.
        now_s: When it was made, Unix seconds in whole milliseconds.
    """

    ranked: RankedList
    started_s: float
    recommendation_id: str
    now_s: float


async def serve(request: web.Request, list_request: ListRequest) -> wire.Recommendations:
    """Make a list, record it as served and return its answer.

    Raises:
        Invalid: The filter or the page token is wrong.
        NotFound: The model has no item whose similar items are asked for.
    """
    return _record(request, await _prepare(request, list_request))


async def serve_all(request: web.Request, list_requests: Sequence[ListRequest]) -> list[wire.Recommendations]:
    """Serve lists, all of them or none.

    Lists are made a few at a time, so that other requests are answered in between.

    Raises:
        Invalid: A request is wrong; the field names its place among them.
    """
    prepared: list[PreparedList] = []
    for start in range(0, len(list_requests), _TOGETHER):
        together = list_requests[start : start + _TOGETHER]
        prepared += await asyncio.gather(
            *(_prepare_one(request, list_request, index) for index, list_request in enumerate(together, start))
        )
        await asyncio.sleep(0)
    return [_record(request, one) for one in prepared]


async def _prepare_one(request: web.Request, list_request: ListRequest, index: int) -> PreparedList:
    try:
        return await _prepare(request, list_request)
    except Invalid as error:
        errors = [{**entry, "field": f"requests[{index}].{entry['field']}"} for entry in error.errors or []]
        raise Invalid(f"requests[{index}].{error.detail}", errors=errors) from None


async def _prepare(request: web.Request, list_request: ListRequest) -> PreparedList:
    """Make a list, without recording it as served."""
    started_s = time.perf_counter()
    context = request.app[CONTEXT]
    # Both before the first await, so that they are of one model.
    snapshot, catalogue = context.store.current(), context.store.catalogue
    recommendation_id = uuid7()
    list_request = _decided(context, list_request, recommendation_id)
    pseudonym = context.pseudonyms.pseudonym(list_request.user_id)
    user_row = None if list_request.user_id is None else user_row_of(context, snapshot, list_request.user_id)
    if pseudonym is None:
        live = None
    elif list_request.level is not None:
        live = context.live.unfolded(snapshot, pseudonym, user_row)
    elif snapshot.computes_users_slowly:
        live = await context.live.computed(snapshot, pseudonym, user_row)
    else:
        live = context.live.user(snapshot, pseudonym, user_row)
    user = list_user(user_row, live)
    # Whole milliseconds, the precision of the time in the served event.
    now_s = int(time.time() * 1000) / 1000
    retrieved = None
    if context.candidates is not None:
        list_model = ListModel(snapshot, catalogue, context.filter_masks)
        list_request, retrieved = await remote_candidates.retrieved(
            request, context, list_model, list_request, user, now_s
        )
    if list_request.is_plain:
        hidden = catalogue.unavailable_rows(now_s)
        ranking = _ranking_or_request(snapshot, list_request, user, hidden)
        if isinstance(ranking, TopNRequest):
            # In one batch with those of other requests.
            ranking = await context.batcher.personal(snapshot, ranking)
        made = pipeline.plain_list(snapshot, list_request, user, hidden, ranking)
    else:
        _require_item(context, snapshot, list_request.similar_to)
        seconds = None if list_request.window is None else window_s(list_request.window)
        counts = None if seconds is None else await context.window_counts.counts(snapshot, seconds)
        list_model = ListModel(snapshot, catalogue, context.filter_masks, counts, retrieved)
        made = pipeline.make_list(list_model, list_request, user, now_s, recommendation_id)
    if list_request.deadline_ms is not None:
        context.level_costs.observe(list_request.level, time.perf_counter() - started_s)
    ranked = RankedList(list_request, snapshot, made, catalogue, live)
    return PreparedList(ranked, started_s, recommendation_id, now_s)


def _require_item(context: ReplicaContext, snapshot: ModelSnapshot, item_id: str | None) -> None:
    """Refuse a list of items similar to one that the snapshot does not have.

    Raises:
        NotFound: There is no such item, or it was removed.
    """
    if item_id is not None and (item_id not in snapshot.items.row_of or context.items.is_removed(item_id)):
        raise NotFound(f"The served model has no item {item_id!r}.")


def _decided(context: ReplicaContext, list_request: ListRequest, recommendation_id: str) -> ListRequest:
    """Return a request with what the server decides: its level, whether it explores, what impressions cost."""
    if list_request.deadline_ms is not None and list_request.similar_to is None:
        list_request = list_request._replace(level=context.level_costs.level_for(list_request.deadline_ms / 1000))
    default = context.config.live_lists.impression_factor
    if list_request.impression_factor is None and default < 1:
        list_request = list_request._replace(impression_factor=default)
    how = context.config.exploration
    if how.share and list_request.similar_to is None and explores(recommendation_id, how.share):
        exploration = Exploration(how.head, how.pool, how.temperature)
        list_request = list_request._replace(exploration=exploration)
    return list_request


def _ranking_or_request(
    snapshot: ModelSnapshot, list_request: ListRequest, user: ListUser | None, hidden: scoring.Rows
) -> Ranking | TopNRequest:
    """Return the ranking of a list that `is_plain`, or the request to compute it from a user's scores."""
    exclude = pipeline.rows_of(snapshot, list_request.exclude)
    if hidden.size:
        exclude = np.concatenate([exclude, hidden])
    if user is not None and user.seen_since.size:
        exclude = np.concatenate([exclude, user.seen_since])
    n, offset = list_request.n + 1, list_request.offset
    if user is not None and list_request.level in REDUCED:
        exclude = np.concatenate([exclude, user.seen_rows(snapshot)])
        return reduced_ranking(snapshot, list_request.level, user.row, n, offset=offset, exclude=exclude)
    if user is None or not user.is_known:
        return scoring.popular(snapshot, n, offset=offset, exclude=exclude)
    # With a representation the row does not count.
    return TopNRequest(user.row or 0, n, offset, exclude, user=user.representation)


def _record(request: web.Request, prepared: PreparedList) -> wire.Recommendations:
    """Return the answer of a list and offer its event to telemetry; every list passes here."""
    ranked, started_s, recommendation_id, now_s = prepared
    context = request.app[CONTEXT]
    degraded = ranked.list_request.degraded or context.state.degraded
    answer = ranked.answer(recommendation_id, degraded)
    if request.method == "HEAD":
        # HEAD has no body, so no item was served.
        return answer
    context.producer.offer(
        ranked.event(
            recommendation_id,
            degraded,
            request_id=request_inputs.request_id(request) or recommendation_id,
            pseudonym=context.pseudonyms.pseudonym(ranked.list_request.user_id),
            served_at_s=now_s,
            latency_ms=round((time.perf_counter() - started_s) * 1000, 3),
        )
    )
    if degraded is not None:
        context.metrics.count_degraded(degraded)
    return answer
