"""Sample events: one of each class with every field set, to be changed by name."""

from dataclasses import replace
from typing import Any

from telemetry.events import Feedback, ItemChange, Served
from telemetry.served_items import Items

_FEEDBACK = Feedback(
    event_id="ev-00000002",
    tenant="default",
    client_time=None,
    received_at="2026-11-21T01:02:03.456Z",
    request_id="r2",
    type="click",
    user_id="42",
    item_id="318",
    value=None,
    recommendation_id=None,
    position=None,
    marks=[],
)
_ITEM_CHANGE = ItemChange(
    event_id="ev-00000004",
    tenant="default",
    client_time=None,
    received_at="2026-11-21T01:02:03.456Z",
    request_id="r4",
    kind="put",
    item_id="318",
    title="Heat (1995)",
    attributes={"genres": ["Crime"], "year": 1995},
    hidden=False,
    available_from=None,
    available_until="2027-01-01T00:00:00.000Z",
)
_SERVED = Served(
    event_id="ev-00000001",
    tenant="default",
    client_time=None,
    received_at="2026-11-21T01:02:03.456Z",
    request_id="r1",
    recommendation_id="rec1",
    user_id="42",
    model="m",
    candidate_set="catalogue",
    latency_ms=0.4,
    degraded=None,
    items=Items(),
)


def item_change(**changes: Any) -> ItemChange:
    """Return a written record, changed."""
    return replace(_ITEM_CHANGE, **changes)


def feedback(**changes: Any) -> Feedback:
    """Return a click, changed."""
    return replace(_FEEDBACK, **changes)


def served(**changes: Any) -> Served:
    """Return a served list, changed; its items may be given as rows."""
    if isinstance(changes.get("items"), list):
        changes["items"] = Items.from_rows(changes["items"])
    return replace(_SERVED, **changes)
