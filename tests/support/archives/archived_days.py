"""The archive that tests of commands read: four events of three dates, and one dead letter."""

from collections.abc import Callable

from telemetry.events import Event, System
from telemetry.served_items import ServedItem
from tests.support.sample_events import feedback, served

Archive = Callable[..., tuple[int, str, str]]
ITEMS: list[ServedItem] = [
    {"item_id": "318", "position": 0, "score": 4.71, "source": "personal", "propensity": 1.0},
    {"item_id": "a,b", "position": 1, "score": 3.5, "source": "popular", "propensity": 0.5},
]
FIRST: list[tuple[int, Event]] = [
    (1, served(event_id="list-1", recommendation_id="list-1", items=ITEMS, received_at="2026-11-20T23:59:59.999Z")),
    (2, feedback(event_id="event-2", value=4.5, type="rating", marks=["unknown_item"])),
]
SECOND: list[tuple[int, Event]] = [
    (3, feedback(event_id="event-3", user_id="7", received_at="2026-11-21T08:00:00.000Z")),
    (
        4,
        System(
            event_id="gap-4",
            tenant="default",
            client_time=None,
            received_at="2026-11-22T00:00:00.000Z",
            kind="gap",
            of_class="served",
            count=5,
            reason="no budget",
            from_seq=3,
            to_seq=3,
        ),
    ),
]
