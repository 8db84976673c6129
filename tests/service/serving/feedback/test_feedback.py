"""Odd feedback is marked and kept."""

from typing import Any

import numpy as np
import pytest

from service.api import wire
from service.config import EventsConfig
from service.models.history.rating_scale import RatingScale
from service.serving.feedback.events import FeedbackContext, feedback_events
from telemetry.events import Feedback
from telemetry.ids import rfc3339_ms
from telemetry.pseudonym import Pseudonymiser

NOW_S = 1_795_222_923.456
DAY_S = 86400


def one(
    row: dict[str, Any],
    known_items: set[str] | None = None,
    key: bytes | None = None,
    scale: RatingScale | None = None,
) -> Feedback:
    body = wire.EventsRequest.model_validate({"events": [{"type": "view", "user_id": "u1", "item_id": "i1", **row}]})
    context = FeedbackContext(NOW_S, "request", "key-0001", known_items, scale)
    (event,) = feedback_events(body.events, context, Pseudonymiser(key), EventsConfig())
    return event


@pytest.mark.parametrize(
    ("ahead_s", "marks"),
    [
        (0, []),
        (299, []),
        (301, ["clock_skew"]),
        (-30 * DAY_S + 1, []),
        (-30 * DAY_S - 1, ["clock_skew"]),
        (400 * 365 * DAY_S, ["clock_skew"]),
    ],
)
def test_a_skewed_client_time_is_marked_and_unchanged(ahead_s: float, marks: list[str]) -> None:
    """More than five minutes ahead of the replica's clock, or thirty days behind it."""
    event = one({"ts": rfc3339_ms(NOW_S + ahead_s)})
    assert event.marks == marks
    assert event.client_time == rfc3339_ms(NOW_S + ahead_s)
    assert event.received_at == rfc3339_ms(NOW_S)


def test_the_earliest_time_is_marked_without_overflow() -> None:
    """The year 1 is a valid time."""
    assert one({"ts": "0001-01-01T00:00:00Z"}).marks == ["clock_skew"]


def test_an_unknown_item_is_marked() -> None:
    """Without a model no item is marked."""
    assert one({}, {"i1"}).marks == []
    assert one({}, {"i2"}).marks == ["unknown_item"]
    assert one({}, None).marks == []
    assert one({"ts": "2001-01-01T00:00:00Z"}, set()).marks == ["unknown_item", "clock_skew"]


@pytest.mark.parametrize(
    ("value", "scale", "marks"),
    [
        (99.0, RatingScale(1.0, 5.0), ["out_of_scale"]),
        (0.5, RatingScale(1.0, 5.0), ["out_of_scale"]),
        (-1e9, RatingScale(1.0, 5.0), ["out_of_scale"]),
        (1.0, RatingScale(1.0, 5.0), []),
        (5.0, RatingScale(1.0, 5.0), []),
        (4.7, RatingScale(0.7, float(np.float32(4.7))), []),
        (0.7, RatingScale(0.7, 4.7), []),
        (99.0, None, []),
    ],
)
def test_a_rating_outside_of_the_scale_is_marked_and_unchanged(
    value: float, scale: RatingScale | None, marks: list[str]
) -> None:
    """Both ends belong to the scale; values of other event types have no scale."""
    event = one({"type": "rating", "value": value}, scale=scale)
    assert (event.marks, event.value) == (marks, value)
    assert one({"type": "purchase", "value": value}, scale=scale).marks == []


def test_the_user_is_recorded_under_a_pseudonym() -> None:
    """The rest of the event is unchanged."""
    key = b"k" * 32
    plain, hidden = one({}), one({}, key=key)
    assert (plain.user_id, hidden.user_id) == ("u1", Pseudonymiser(key).pseudonym("u1"))
    assert hidden.event_id == plain.event_id == "key-0001-0"
