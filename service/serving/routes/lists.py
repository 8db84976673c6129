"""The routes of lists: personal, popular and similar ones. `served_lists` makes and records them."""

from urllib.parse import quote

from aiohttp import web

from service.api import wire
from service.api.list_bodies import ManyRecommendationsRequest, RecommendationsRequest
from service.api.reply import Reply
from service.lists.list_request import ListRequest
from service.serving.http import request_inputs
from service.serving.lists import served_lists
from service.serving.lists.inputs import list_request_of


async def recommend_plain(request: web.Request) -> web.Response:
    """GET /recommend/{user_id}, or /recommend?user_id=…: up to 20 item ids as one line of text."""
    user_id = request_inputs.read_id(request, "user_id")
    answer = await served_lists.serve(request, ListRequest(wire.PLAIN_LIMIT, user_id))
    body = wire.plain_list([item["item_id"] for item in answer["items"]])
    response = Reply(body, "text/plain; charset=utf-8")
    if request.method != "HEAD":
        response.headers["X-Recommendation-Id"] = str(answer["recommendation_id"])
    return _mark_degraded(response, answer)


async def recommend_get(request: web.Request) -> web.Response:
    """GET /v1/recommendations/{user_id}?n=10, or /v1/recommendations?user_id=…: the same list as JSON."""
    user_id = request_inputs.read_id(request, "user_id", request_inputs.LIST_FIELDS)
    query = request_inputs.read_list_query(request)
    return _list_reply(await served_lists.serve(request, query.request(user_id)))


async def recommend_post(request: web.Request) -> web.Response:
    """POST /v1/recommendations: the same list with all that can be asked for."""
    request_inputs.require_query_fields(request, ())
    body = wire.decode(RecommendationsRequest, await request_inputs.read_body(request))
    return _list_reply(await served_lists.serve(request, list_request_of(body)))


async def recommend_many(request: web.Request) -> web.Response:
    """POST /v1/recommendations/batch: several lists in one request, all of them or none."""
    request_inputs.require_query_fields(request, ())
    body = wire.decode(ManyRecommendationsRequest, await request_inputs.read_body(request))
    lists = await served_lists.serve_all(request, [list_request_of(one) for one in body.requests])
    return Reply(wire.encode({"lists": lists}))


async def popular(request: web.Request) -> web.Response:
    """GET /v1/popular?n=10&window=7d: the most popular items, of all time or within a window."""
    request_inputs.require_query_fields(request, (*request_inputs.LIST_FIELDS, "window"))
    query = request_inputs.read_list_query(request)
    window = request_inputs.read_window(request)
    return _list_reply(await served_lists.serve(request, query.request(window=window)))


async def similar(request: web.Request) -> web.Response:
    """GET /v1/items/{item_id}/similar?n=10, or /v1/items/similar?item_id=…: the nearest items."""
    item_id = request_inputs.read_id(request, "item_id", request_inputs.LIST_FIELDS)
    query = request_inputs.read_list_query(request)
    return _list_reply(await served_lists.serve(request, query.request(similar_to=item_id)))


def _list_reply(answer: wire.Recommendations) -> web.Response:
    return _mark_degraded(Reply(wire.encode(answer)), answer)


def _mark_degraded(response: web.Response, answer: wire.Recommendations) -> web.Response:
    if answer["degraded"] is not None:
        response.headers["X-Degraded"] = quote(answer["degraded"])
    return response
