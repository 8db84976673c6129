"""The routes of the item catalogue: write, remove and show items.

Invariant: a change is answered 202 when it is on the disk; this replica has it by then, the others as soon as the
consumer has archived it.
"""

import time
from collections.abc import Sequence

from aiohttp import web

from service.api import item_wire, wire
from service.api.reply import Reply
from service.errors import NotFound
from service.security.api_key import TENANT
from service.serving.http import request_inputs
from service.serving.replica.context import CONTEXT
from service.serving.routes.acceptance import accepted, translated_telemetry_errors
from telemetry.batch import EventPosition
from telemetry.events import ItemChange, ItemChangeKind
from telemetry.ids import rfc3339_ms, uuid7

_NO_RECORD = item_wire.ItemRecordIn()


async def show_item(request: web.Request) -> web.Response:
    """GET /v1/items/{item_id}, or /v1/items?item_id=…: what is known of an item."""
    item_id = request_inputs.read_id(request, "item_id")
    context = request.app[CONTEXT]
    record = context.items.record(item_id)
    if record is None:
        raise NotFound(f"There is no item {item_id!r}.")
    details: item_wire.ItemDetails = {
        "item_id": item_id,
        "title": record.title,
        "attributes": dict(record.attributes),
        "hidden": record.hidden,
        "available_from": _time_text(record.available_from_s),
        "available_until": _time_text(record.available_until_s),
        "trained": item_id in context.store.model.items.row_of,
    }
    return Reply(wire.encode(details))


async def put_item(request: web.Request) -> web.Response:
    """PUT /v1/items/{item_id}, or /v1/items?item_id=…: write an item."""
    item_id = request_inputs.read_id(request, "item_id")
    raw = await request_inputs.read_body(request)
    return await _change(request, item_id, "put", wire.decode(item_wire.ItemRecordIn, raw), raw)


async def delete_item(request: web.Request) -> web.Response:
    """DELETE /v1/items/{item_id}, or /v1/items?item_id=…: remove an item from every list."""
    item_id = request_inputs.read_id(request, "item_id")
    return await _change(request, item_id, "delete", _NO_RECORD, b"")


async def post_items(request: web.Request) -> web.Response:
    """POST /v1/items: write several items, all or none."""
    request_inputs.require_query_fields(request, ())
    raw = await request_inputs.read_body(request)
    body = wire.decode(item_wire.ItemsRequest, raw)
    changes = _changes(request, [("put", item.item_id, item) for item in body.items])
    await _accept(request, changes, raw)
    receipt: item_wire.ItemsAccepted = {"accepted": len(changes), "durability": "disk"}
    return accepted(receipt)


async def _change(
    request: web.Request, item_id: str, kind: ItemChangeKind, record: item_wire.ItemRecordIn, raw: bytes
) -> web.Response:
    changes = _changes(request, [(kind, item_id, record)])
    await _accept(request, changes, b"\0".join((kind.encode(), item_id.encode(), raw)))
    (change,) = changes
    receipt: item_wire.ItemReceipt = {
        "item_id": item_id,
        "event_id": change.event_id,
        "received_at": change.received_at,
        "durability": "disk",
    }
    return accepted(receipt)


def _changes(
    request: web.Request, records: Sequence[tuple[ItemChangeKind, str, item_wire.ItemRecordIn]]
) -> list[ItemChange]:
    key = request_inputs.idempotency_key(request)
    request_id = request_inputs.request_id(request) or uuid7()
    received_at = rfc3339_ms(time.time())
    return [
        ItemChange(
            event_id=uuid7() if key is None else f"{key}-{index}",
            tenant=TENANT,
            client_time=None,
            received_at=received_at,
            request_id=request_id,
            kind=kind,
            item_id=item_id,
            title=record.title,
            attributes=None if record.attributes is None else dict(record.attributes),
            hidden=record.hidden,
            available_from=record.available_from,
            available_until=record.available_until,
        )
        for index, (kind, item_id, record) in enumerate(records)
    ]


async def _accept(request: web.Request, changes: Sequence[ItemChange], content: bytes) -> None:
    """Hand changes to telemetry; `content` is what the request's idempotency key stands for."""
    context = request.app[CONTEXT]
    key = request_inputs.idempotency_key(request)
    client_key = None if request_inputs.is_balancer_key(request, key) else key

    def apply(first: EventPosition) -> None:
        context.items.accept(changes, first)

    with context.idempotency_keys.attempt(client_key, content), translated_telemetry_errors():
        await context.producer.accept(changes, apply)


def _time_text(unix_s: float | None) -> str | None:
    return None if unix_s is None else rfc3339_ms(unix_s)
