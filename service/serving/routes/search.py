"""GET /v1/items: one item by its id, or a search of the catalogue."""

from typing import Final

import numpy as np
from aiohttp import web

from service.api import search_wire, wire
from service.api.reply import Reply
from service.catalogue.catalogue import Catalogue
from service.errors import FilterRefused, NotFound
from service.lists.item_scores import ListUser
from service.live.live_users import list_user
from service.models.snapshot import ModelSnapshot
from service.search.item_search import ItemSearch
from service.search.words import TERMS_LIMIT, terms
from service.serving.http import request_inputs
from service.serving.replica.context import CONTEXT, ReplicaContext
from service.serving.replica.known_users import user_row_of
from service.serving.routes import items

_SEARCHES: Final = ("q", "like")
_FIELDS: Final = (*_SEARCHES, "user_id", "n", "filter", "fields")


async def items_by_query(request: web.Request) -> web.Response:
    """GET /v1/items?item_id=…: what is known of an item; ?q=… or ?like=…: the items that match."""
    if not any(name in request.query for name in _SEARCHES):
        if "item_id" not in request.query:
            raise wire.invalid_field("item_id", "is needed, or q or like for a search")
        return await items.show_item(request)
    return await search_items(request)


async def search_items(request: web.Request) -> web.Response:
    """GET /v1/items?q=…&like=…: the items whose words match or that are like an item, by the taste of a user."""
    request_inputs.require_query_fields(request, _FIELDS)
    text, like, user_id = (request_inputs.read_text(request, name) for name in ("q", "like", "user_id"))
    query = request_inputs.read_list_query(request)
    if text is not None and len(terms(text)) > TERMS_LIMIT:
        raise wire.invalid_field("q", f"must be at most {TERMS_LIMIT} words")
    context = request.app[CONTEXT]
    # All before the first await, so that they are of one model.
    snapshot, catalogue, model = context.store.current(), context.store.catalogue, context.store.model
    like_row = None
    if like is not None:
        like_row = snapshot.items.row_of.get(like)
        if like_row is None or context.items.is_removed(like):
            raise NotFound(f"The served model has no item {like!r}.")
    search = ItemSearch(
        query.n,
        text,
        like_row,
        None if query.filter is None else _mask(context, query.filter, catalogue),
        catalogue.unavailable_rows(request_inputs.now_s()),
        None if user_id is None else await _user(context, snapshot, user_id),
    )
    found = await context.search.find(model, snapshot, catalogue, search)
    items: list[search_wire.FoundItem] = [
        {"item_id": snapshot.items.id_of[row], "score": score}
        for row, score in zip(found.rows, found.scores.round(6).tolist(), strict=True)
    ]
    if query.fields:
        for item, row in zip(items, found.rows, strict=True):
            item["fields"] = catalogue.fields(row, query.fields)
    answer: search_wire.FoundItems = {
        "query": text,
        "corrected": found.corrected,
        "like": like,
        "user_id": user_id,
        "model": snapshot.version,
        "items": items,
    }
    return Reply(wire.encode(answer))


def _mask(context: ReplicaContext, text: str, catalogue: Catalogue) -> np.ndarray:
    try:
        return context.filter_masks.of(text, catalogue).mask
    except FilterRefused as refused:
        raise wire.invalid_text("filter", refused.reason, refused.column) from None


async def _user(context: ReplicaContext, snapshot: ModelSnapshot, user_id: str) -> ListUser | None:
    user_row = user_row_of(context, snapshot, user_id)
    return list_user(user_row, await context.live.computed(snapshot, context.pseudonyms.pseudonym(user_id), user_row))
