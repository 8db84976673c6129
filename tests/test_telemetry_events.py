from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.errors import BadEventError
from telemetry.events import Event, Feedback, Served, System, decode, encode, renumber

SERVED = Served(
    event_id="ev-00000001",
    tenant="default",
    client_time=None,
    received_at="2026-11-21T01:02:03.456Z",
    request_id="r1",
    recommendation_id="rec1",
    user_id="42",
    model="svd-20261121T010203-9f3c",
    variant=None,
    candidate_set="all",
    state_watermark="w",
    latency_ms=0.4,
    degraded=None,
    items=[{"item_id": "318", "position": 0, "score": 4.71, "source": "personal", "propensity": 1.0}],
)
FEEDBACK = Feedback(
    event_id="ev-00000002",
    tenant="default",
    client_time="2026-11-21T01:02:00.000Z",
    received_at="2026-11-21T01:02:03.456Z",
    request_id="r2",
    type="rating",
    user_id="42",
    item_id="318",
    value=4.5,
    recommendation_id=None,
    position=None,
    marks=[],
)
GAP = System(
    event_id="ev-00000003",
    tenant="default",
    client_time=None,
    received_at="2026-11-21T01:02:03.456Z",
    kind="gap",
    of_class="served",
    count=3,
    reason="no budget",
    from_seq=8,
    to_seq=8,
)
GOLDEN: dict[str, tuple[Event, bytes]] = {
    "served": (
        SERVED,
        (
            b'{"schema":1,"class":"served","event_id":"ev-00000001","tenant":"default","client_time":null,'
            b'"received_at":"2026-11-21T01:02:03.456Z","producer":"p","epoch":1,"seq":7,"request_id":"r1",'
            b'"recommendation_id":"rec1","user_id":"42","model":"svd-20261121T010203-9f3c","variant":null,'
            b'"candidate_set":"all","state_watermark":"w","latency_ms":0.4,"degraded":null,'
            b'"items":[{"item_id":"318","position":0,"score":4.71,"source":"personal","propensity":1.0}]}\n'
        ),
    ),
    "feedback": (
        FEEDBACK,
        (
            b'{"schema":1,"class":"feedback","event_id":"ev-00000002","tenant":"default",'
            b'"client_time":"2026-11-21T01:02:00.000Z","received_at":"2026-11-21T01:02:03.456Z","producer":"p",'
            b'"epoch":1,"seq":7,"request_id":"r2","type":"rating","user_id":"42","item_id":"318","value":4.5,'
            b'"recommendation_id":null,"position":null,"marks":[]}\n'
        ),
    ),
    "system": (
        GAP,
        (
            b'{"schema":1,"class":"system","event_id":"ev-00000003","tenant":"default","client_time":null,'
            b'"received_at":"2026-11-21T01:02:03.456Z","producer":"p","epoch":1,"seq":7,"kind":"gap",'
            b'"of_class":"served","count":3,"reason":"no budget","from_seq":8,"to_seq":8,"user_id":null}\n'
        ),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_of_a_line_are_fixed(name: str) -> None:
    """Every field is present, in the design's order; old archives depend on these bytes."""
    event, line = GOLDEN[name]
    assert encode(event, "p", 1, 7) == line


@pytest.mark.parametrize("name", GOLDEN)
def test_a_line_reads_back_as_the_event(name: str) -> None:
    """Decoding gives the event and its place."""
    event, line = GOLDEN[name]
    assert decode(line) == (event, "p", 1, 7)
    assert decode(line.rstrip()) == (event, "p", 1, 7)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    user_id=TEXT,
    item_id=TEXT,
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    seq=st.integers(1, 2**53),
)
def test_any_text_and_number_survives(user_id: str, item_id: str, value: float | None, seq: int) -> None:
    """Whatever a client may send, the line is one line and gives the same event back."""
    event = replace(FEEDBACK, user_id=user_id, item_id=item_id, value=value)
    line = encode(event, "p", 2, seq)
    assert line.count(b"\n") == 1
    assert line.splitlines(keepends=True) == [line]
    assert decode(line) == (event, "p", 2, seq)


def test_what_json_cannot_hold_is_refused() -> None:
    """A lone surrogate, an object that is no event, a foreign type inside: one kind of error."""
    bad: list[Any] = [
        replace(FEEDBACK, user_id="\ud800"),
        replace(FEEDBACK, value=float("nan")),
        replace(FEEDBACK, value=float("-inf")),
        {"class": "feedback"},
        replace(SERVED, items=[{"item_id": object()}]),  # type: ignore[typeddict-item]  # wrong on purpose
    ]
    for event in bad:
        with pytest.raises(BadEventError):
            encode(event, "p", 1, 1)


def damaged(**changes: object) -> bytes:
    fields = orjson.loads(GOLDEN["served"][1])
    return orjson.dumps({**fields, **changes})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (damaged(schema=2), "schema 2"),
        (damaged(**{"class": "nonsense"}), "'nonsense'"),
        (damaged(**{"class": ["served"]}), "not a class"),
        (damaged(user_id=42), "'user_id'"),
        (damaged(seq="7"), "'seq'"),
        (damaged(epoch=True), "'epoch'"),
        (damaged(received_at="yesterday"), "received_at"),
        (damaged(received_at="2026-13-21T01:02:03.456Z"), "received_at"),
        (damaged(received_at="../../../../../etc/pass"), "received_at"),
        (damaged(items=["318"]), "item"),
        (damaged(items=[{"item_id": "318"}]), "'position'"),
        (orjson.dumps({"schema": 1, "class": "feedback"}), "no field 'event_id'"),
        (GOLDEN["system"][1].replace(b'"gap"', b'"nap"'), "'nap'"),
        (GOLDEN["feedback"][1].replace(b'"marks":[]', b'"marks":"odd"'), "'marks'"),
        (GOLDEN["feedback"][1].replace(b'"marks":[]', b'"marks":[1]'), "'marks'"),
    ],
)
def test_a_bad_line_is_refused_with_its_fault(line: bytes, says: str) -> None:
    """The message names what is wrong, for the dead letter."""
    with pytest.raises(BadEventError, match=says):
        decode(line)


def test_a_field_of_a_later_version_does_no_harm() -> None:
    """A line with an additional field is read; the archive keeps its bytes."""
    assert decode(damaged(later="x")).event == SERVED


def test_marks_are_kept_and_absent_in_lines_of_before_there_were_any() -> None:
    """Both an archive of today and one of the first release read back."""
    marked = replace(FEEDBACK, marks=["unknown_item", "clock_skew"])
    assert decode(encode(marked, "p", 1, 7)).event == marked
    assert decode(GOLDEN["feedback"][1].replace(b',"marks":[]', b"")).event == FEEDBACK


@pytest.mark.parametrize("name", GOLDEN)
def test_renumbering_changes_the_place_only(name: str) -> None:
    """A renumbered line is the line that would have been written there."""
    event, _ = GOLDEN[name]
    assert renumber(encode(event, "p", 1, 7), "q", 3, 1) == encode(event, "q", 3, 1)
