"""Feedback events from a client's rows (pure).

Invariant: a well-formed event is kept. An implausible time, item or value is marked and never refused, because the
replica's own clock or model may be wrong.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from service.api import wire
from service.config import EventsConfig
from service.models.history.rating_scale import RatingScale
from service.security.api_key import TENANT
from telemetry.events import Feedback, Mark
from telemetry.ids import rfc3339_ms, uuid7
from telemetry.pseudonym import Pseudonymiser


@dataclass(frozen=True)
class FeedbackContext:
    """The circumstances in which the events of one request arrived.

    Attributes:
        now_s: Seconds since 1970 by the replica's clock.
        request_id: The balancer's id of the request, or the replica's.
        key: The Idempotency-Key, which names events without an id; or None.
        known_items: The items of the served model; None without a model, and then no item is marked as unknown.
        scale: The declared rating scale, or the served model's; None without either.
    """

    now_s: float
    request_id: str
    key: str | None
    known_items: Container[str] | None
    scale: RatingScale | None = None


def feedback_events(
    rows: Sequence[wire.EventIn], context: FeedbackContext, pseudonyms: Pseudonymiser, config: EventsConfig
) -> list[Feedback]:
    """Return one event per checked row, in order, with pseudonyms in place of user ids."""
    received_at = rfc3339_ms(context.now_s)
    return [
        Feedback(
            event_id=row.event_id or (uuid7() if context.key is None else f"{context.key}-{index}"),
            tenant=TENANT,
            client_time=row.ts,
            received_at=received_at,
            request_id=context.request_id,
            type=row.type,
            user_id=pseudonyms.pseudonym(row.user_id),
            item_id=row.item_id,
            value=row.value,
            recommendation_id=row.recommendation_id,
            position=row.position,
            marks=_marks(row, context, config),
        )
        for index, row in enumerate(rows)
    ]


def _marks(row: wire.EventIn, context: FeedbackContext, config: EventsConfig) -> list[Mark]:
    marks: list[Mark] = []
    if context.known_items is not None and row.item_id not in context.known_items:
        marks.append("unknown_item")
    if row.type == "rating" and row.value is not None and context.scale is not None:
        low, high = context.scale
        # A model holds its scale as float32, in which 4.7 is slightly less.
        if not (low <= row.value <= high or low <= float(np.float32(row.value)) <= high):
            marks.append("out_of_scale")
    if row.ts is not None:
        ahead_s = datetime.fromisoformat(row.ts).timestamp() - context.now_s
        if not -config.clock_skew_behind_s <= ahead_s <= config.clock_skew_ahead_s:
            marks.append("clock_skew")
    return marks
