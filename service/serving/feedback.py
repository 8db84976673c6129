"""What a client's events become: the records that telemetry keeps of them (pure).

Invariant: an event that a person could have caused is kept. What is odd about it is marked, never a reason to refuse
it: a replica whose own clock or model is the one that is wrong must not turn everybody away.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np

from service.api import wire
from service.config import EventsConfig
from service.models.rating_scale import RatingScale
from telemetry.events import Feedback, Mark
from telemetry.ids import rfc3339_ms, uuid7
from telemetry.pseudonym import Pseudonymiser

TENANT: Final = "default"


@dataclass(frozen=True)
class Reception:
    """How one request's events came in.

    Attributes:
        now_s: When, in seconds since 1970 by our clock.
        request_id: The balancer's id of the request, or ours.
        key: The Idempotency-Key, which names events without an id; or None.
        known_items: The items of the served model; None while there is none, and then none is called unknown.
        scale: The scale of ratings, the declared one or the served model's; None while there is none.
    """

    now_s: float
    request_id: str
    key: str | None
    known_items: Container[str] | None
    scale: RatingScale | None = None


def recorded(
    rows: Sequence[wire.EventIn], reception: Reception, pseudonyms: Pseudonymiser, config: EventsConfig
) -> list[Feedback]:
    """Return the records of a request's events.

    Args:
        rows: The events, checked.
        reception: How they came in.
        pseudonyms: What telemetry may know of a user.
        config: What counts as a skewed clock.

    Returns:
        One record per row, in order.
    """
    received_at = rfc3339_ms(reception.now_s)
    return [
        Feedback(
            event_id=row.event_id or (uuid7() if reception.key is None else f"{reception.key}-{index}"),
            tenant=TENANT,
            client_time=row.ts,
            received_at=received_at,
            request_id=reception.request_id,
            type=row.type,
            user_id=pseudonyms.pseudonym(row.user_id),
            item_id=row.item_id,
            value=row.value,
            recommendation_id=row.recommendation_id,
            position=row.position,
            marks=_marks(row, reception, config),
        )
        for index, row in enumerate(rows)
    ]


def _marks(row: wire.EventIn, reception: Reception, config: EventsConfig) -> list[Mark]:
    marks: list[Mark] = []
    if reception.known_items is not None and row.item_id not in reception.known_items:
        marks.append("unknown_item")
    if row.type == "rating" and row.value is not None and reception.scale is not None:
        low, high = reception.scale
        # A model has its ratings as float32, where 4.7 is a little less.
        if not (low <= row.value <= high or low <= float(np.float32(row.value)) <= high):
            marks.append("out_of_scale")
    if row.ts is not None:
        ahead_s = datetime.fromisoformat(row.ts).timestamp() - reception.now_s
        if not -config.clock_skew_behind_s <= ahead_s <= config.clock_skew_ahead_s:
            marks.append("clock_skew")
    return marks
