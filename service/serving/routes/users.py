"""The route that shows what is known of a user."""

from typing import Final

from aiohttp import web

from service.api import user_wire, wire
from service.api.reply import Reply
from service.live.live_users import list_user
from service.models.history.user_history import EVENT_TYPES, UserHistory
from service.models.snapshot import ModelSnapshot
from service.serving.http import request_inputs
from service.serving.replica.context import CONTEXT
from service.serving.replica.known_users import user_row_of
from telemetry.ids import rfc3339_ms
from telemetry.live.live_event import LiveEvent

_MS_PER_S: Final = 1000


async def known_user(request: web.Request) -> web.Response:
    """GET /v1/users/{user_id}?n=10, or /v1/users?user_id=…: what lists of a user answer to, the latest first."""
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
