"""The routes of users: what is known of one, and erasing one."""

import time
from typing import Final

from aiohttp import web

from service.api import user_wire, wire
from service.api.reply import Reply
from service.errors import Unavailable
from service.live.live_users import list_user
from service.models.history.user_history import EVENT_TYPES, UserHistory
from service.models.snapshot import ModelSnapshot
from service.security import security_log
from service.security.api_key import TENANT
from service.serving.http import request_inputs
from service.serving.replica.context import CONTEXT
from service.serving.replica.known_users import model_user_id, user_row_of
from service.serving.routes.acceptance import accepted, translated_telemetry_errors
from telemetry.events import System
from telemetry.ids import rfc3339_ms, uuid7
from telemetry.live.live_event import LiveEvent

_MS_PER_S: Final = 1000


async def known_user(request: web.Request) -> web.Response:
    """GET /v1/users/{user_id}?n=10, or /v1/users?user_id=…: what is known of a user, the latest first."""
    context = request.app[CONTEXT]
    user_id = request_inputs.read_id(request, "user_id", ("n",))
    n = request_inputs.read_list_query(request).n
    snapshot = context.store.current()
    pseudonym = context.pseudonyms.pseudonym(user_id)
    user_row = user_row_of(context, snapshot, user_id)
    live = await context.live.computed(snapshot, pseudonym, user_row)
    events = context.live.state.user(pseudonym)
    user = list_user(user_row, live)
    history = None if user is None else user.known_history(snapshot)
    answer: user_wire.KnownUser = {
        "user_id": user_id,
        "model": snapshot.version,
        "trained": user_row is not None,
        "n_interactions": 0 if history is None else history.rows.size,
        "interactions": [] if history is None else _interactions(snapshot, history, n),
        "n_events": 0 if events is None else len(events.events),
        "events": [] if events is None else [_event(event) for event in events.events[: -n - 1 : -1]],
        "state_watermark": None if events is None else events.watermark,
        "freshness": user_wire.freshness(snapshot.data_as_of, live),
    }
    return Reply(wire.encode(answer))


def _interactions(snapshot: ModelSnapshot, history: UserHistory, n: int) -> list[user_wire.Interaction]:
    """Return the last interactions of a history, the latest first."""
    last = slice(None, -n - 1, -1)
    rows, values, types = (column[last].tolist() for column in history[:3])
    times_s = [None] * len(rows) if history.times_s is None else history.times_s[last].tolist()
    return [
        {
            "item_id": snapshot.items.id_of[row],
            "type": EVENT_TYPES[type_],
            "value": value,
            "time": None if time_s is None else rfc3339_ms(time_s),
        }
        for row, value, type_, time_s in zip(rows, values, types, times_s, strict=True)
    ]


def _event(event: LiveEvent) -> user_wire.Interaction:
    return {
        "item_id": event.item_id,
        "type": event.type,
        "value": event.value,
        "time": rfc3339_ms(event.time_ms / _MS_PER_S),
    }


async def erase_user(request: web.Request) -> web.Response:
    """DELETE /v1/users/{user_id}, or /v1/users?user_id=…: erase a user, on this replica at once, elsewhere soon."""
    context = request.app[CONTEXT]
    user_id = request_inputs.read_id(request, "user_id")
    erase = System(
        event_id=uuid7(),
        tenant=TENANT,
        client_time=None,
        received_at=rfc3339_ms(time.time()),
        kind="erase",
        user_id=context.pseudonyms.pseudonym(user_id),
    )
    # The security log first, so that no erase is carried out without an entry.
    await _log_erase(request, erase)
    with translated_telemetry_errors():
        acceptance = await context.producer.accept([erase], lambda _first: context.live.erase(erase))
    if context.store.version is not None:
        context.store.erase_user(model_user_id(context, context.store.current(), user_id))
    return accepted(
        {
            "erase_id": erase.event_id,
            "user_id": user_id,
            "requested_at": erase.received_at,
            "durability": acceptance.durability,
        }
    )


async def _log_erase(request: web.Request, erase: System) -> None:
    """Enter an erase in the security log.

    Raises:
        Unavailable: The log cannot be written.
    """
    context = request.app[CONTEXT]
    entry = security_log.new_entry(
        "erase",
        by=f"replica-{context.producer.slot}",
        # The boundary has admitted the request; this look-up returns the id of its key.
        key=context.gate.admit(request.headers, "erase"),
        erase_id=erase.event_id,
        request_id=request_inputs.request_id(request),
    )
    try:
        await context.security_log.record(entry)
    except (OSError, TimeoutError):
        raise Unavailable("The security log cannot be written at the moment.", retry_after_s=1) from None
