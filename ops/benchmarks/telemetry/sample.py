"""The events of benchmarks, of usual size, each with its own ids and time."""

import time
from typing import Final

from telemetry.events import Feedback, Served
from telemetry.ids import rfc3339_ms, uuid7
from telemetry.served_items import Items

_LIST_LENGTH: Final = 10
_MODEL: Final = "svd-20261121T010203-9f3c"


def served(index: int) -> Served:
    """Return the event of a list of ten items, as the handler makes it."""
    event_id = uuid7()
    return Served(
        event_id=event_id,
        tenant="default",
        client_time=None,
        received_at=rfc3339_ms(time.time()),
        request_id=event_id,
        recommendation_id=event_id,
        user_id=str(index % 6040),
        model=_MODEL,
        candidate_set="catalogue",
        latency_ms=0.412,
        degraded=None,
        items=Items(
            [str(100 + 37 * position + index % 100) for position in range(_LIST_LENGTH)],
            [4.712345 - position / 128 for position in range(_LIST_LENGTH)],
            0,
            "personal",
        ),
    )


def click(index: int) -> Feedback:
    """Return the event of a click."""
    return Feedback(
        event_id=uuid7(),
        tenant="default",
        client_time=None,
        received_at=rfc3339_ms(time.time()),
        request_id=uuid7(),
        type="click",
        user_id=str(index % 6040),
        item_id=str(index % 3706),
        value=None,
        recommendation_id=None,
        position=None,
        marks=[],
    )
