from dataclasses import replace
from typing import Any

import orjson
import pytest

from telemetry.audit.event_outline import EventOutline, GapCount, parse_outline
from telemetry.events import System, encode
from tests.support.sample_events import feedback, served

AT = "2026-11-21T01:02:03.456Z"


def line(seq: int, **changes: Any) -> EventOutline:
    return EventOutline("feedback", "default", f"event-{seq}", None, AT, "p", 1, seq, None)._replace(**changes)


def test_the_outline_of_an_encoded_event() -> None:
    """The fields of an outline, and the counts of a gap record."""
    one = served(event_id="rec-1", recommendation_id="rec-2")
    assert parse_outline(encode(one, "p", 2, 3)) == EventOutline(
        "served", "default", "rec-1", "rec-2", AT, "p", 2, 3, None
    )
    assert parse_outline(encode(feedback(), "p", 2, 3)).gap is None
    gap = System(
        event_id="e",
        tenant="default",
        client_time=None,
        received_at=AT,
        kind="gap",
        of_class="served",
        count=5,
        reason="no budget",
    )
    assert parse_outline(encode(gap, "p", 2, 3)).gap == GapCount("served", "no budget", 5)
    assert parse_outline(encode(replace(gap, kind="unclean_start", count=None), "p", 2, 3)).gap is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]\n",
        b'{"class": "feedback"}\n',
        b"\0" * 80,
        line(1)._replace(seq=0),
        line(1, epoch="1"),
        line(1, tenant=["default"]),
        line(1, received_at=None),
    ],
)
def test_what_is_not_an_event_is_refused(text: bytes | EventOutline) -> None:
    """Neither a line without its position nor one with a field of the wrong type is an event."""
    if isinstance(text, EventOutline):
        fields = text._asdict()
        text = orjson.dumps({**fields, "class": fields.pop("of_class"), "kind": "x"})
    with pytest.raises(ValueError):  # noqa: PT011 - any sentence will do
        parse_outline(text)


def test_a_torn_tail_is_noticed() -> None:
    """A line must be whole, although the fields that the audit needs are at its beginning."""
    whole = encode(served(), "p", 1, 1)
    parse_outline(whole)
    with pytest.raises(ValueError):  # noqa: PT011 - any sentence will do
        parse_outline(whole[:-40])
