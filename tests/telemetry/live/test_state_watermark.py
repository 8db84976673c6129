"""State watermarks: texts that name the live events of a list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.batch import EventPosition, Position
from telemetry.errors import BadEventError
from telemetry.live.live_event import last_events
from telemetry.live.state_watermark import PendingEvent, applied_events, parse_watermark, watermark_text
from tests.support.live.live_events import event

PRODUCERS = ("0193aaaa-bbbb-7ccc-8ddd-00000000aaaa", "b")


def test_the_text_is_fixed() -> None:
    """Archived lists depend on it."""
    events = [event(7), event(2, producer="b"), event(9), event(11, 2_000)]
    text = watermark_text(events, {EventPosition("p", 1, 11)}, since_ms=500)
    assert text == "b:1-2,p:1-9+event-p-11@2000@p:1-11~500"
    watermark = parse_watermark(text)
    assert watermark.marks == {"b": Position(1, 2), "p": Position(1, 9)}
    assert watermark.pending == (PendingEvent("event-p-11", 2_000, EventPosition("p", 1, 11)),)
    assert watermark.since_ms == 500
    assert (watermark_text([]), parse_watermark("").marks) == ("", {})


@pytest.mark.parametrize("text", ["p", "p:1", "p:1-x", "p:1-2+id", "p:1-2+id@x@p:1-1", "p:1-2~x", "p:1-2+id@1@p"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(BadEventError, match="not a state watermark"):
        parse_watermark(text)


POSITIONS = st.lists(
    st.tuples(st.sampled_from(PRODUCERS), st.integers(1, 2), st.integers(1, 30), st.integers(0, 5)),
    max_size=20,
    unique_by=lambda one: one[:3],
)


@given(POSITIONS, st.integers(1, 8), st.integers(0, 20))
def test_a_watermark_gives_the_events_back(found: list[tuple[str, int, int, int]], most: int, n_delivered: int) -> None:
    """Whatever part of each producer's events was delivered, in its order, and whatever is among the last."""
    events = [
        event(seq, time, producer=name, position=EventPosition(name, epoch, seq)) for name, epoch, seq, time in found
    ]
    in_order = sorted(events, key=lambda one: one.position[1:])
    delivered = in_order[:n_delivered]
    applied = last_events(delivered, most)
    assert applied_events(events, parse_watermark(watermark_text(applied)), most) == applied
