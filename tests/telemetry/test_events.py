from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.archive.schema_1 import expand
from telemetry.errors import BadEventError
from telemetry.events import Event, System, decode, encode, renumber
from telemetry.served_items import Items
from tests.support import sample_events

SERVED = sample_events.served(
    model="svd-20261121T010203-9f3c",
    candidate_set="all",
    state_watermark="q:2-9",
    events_applied=3,
    catalogue_watermark="q:1-2",
    request={"n": 1},
    items=Items(["318"], [4.71], 0, "personal", 1.0),
)
FEEDBACK = sample_events.feedback(client_time="2026-11-21T01:02:00.000Z", type="rating", value=4.5)
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
            b'{"schema":4,"class":"served","event_id":"ev-00000001","tenant":"default","client_time":null,'
            b'"received_at":"2026-11-21T01:02:03.456Z","producer":"p","epoch":1,"seq":7,"request_id":"r1",'
            b'"recommendation_id":"rec1","user_id":"42","model":"svd-20261121T010203-9f3c",'
            b'"candidate_set":"all","state_watermark":"q:2-9","events_applied":3,"catalogue_watermark":"q:1-2","request":{"n":1},'
            b'"latency_ms":0.4,"degraded":null,'
            b'"items":{"item_id":["318"],"score":[4.71],"position":0,"source":"personal","propensity":1.0}}\n'
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
    "item": (
        sample_events.item_change(),
        (
            b'{"schema":1,"class":"item","event_id":"ev-00000004","tenant":"default","client_time":null,'
            b'"received_at":"2026-11-21T01:02:03.456Z","producer":"p","epoch":1,"seq":7,"request_id":"r4",'
            b'"kind":"put","item_id":"318","title":"Heat (1995)","attributes":{"genres":["Crime"],"year":1995},'
            b'"hidden":false,"available_from":null,"available_until":"2027-01-01T00:00:00.000Z"}\n'
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
    """Decoding gives the event and its position."""
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


ROWS = st.lists(
    st.builds(
        lambda item_id, position, score, source, propensity: {
            "item_id": item_id,
            "position": position,
            "score": score,
            "source": source,
            "propensity": propensity,
        },
        TEXT,
        st.integers(0, 3),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(["personal", "popular"]),
        st.sampled_from([1, 1.0, 0.25]),
    ),
    max_size=5,
)


@given(ROWS)
def test_any_rows_come_back_out_of_columns(rows: list[Any]) -> None:
    """Sources, positions and probabilities of their own included, number for number."""
    event = replace(SERVED, items=Items.from_rows(rows))
    expanded = orjson.loads(expand(encode(event, "p", 1, 7)))
    assert orjson.dumps(expanded["items"]) == orjson.dumps(rows)
    assert decode(encode(event, "p", 1, 7)).event == event


def test_a_long_list_takes_a_fifth_of_its_rows() -> None:
    """Ids and values that all items share are written once."""
    rows: list[Any] = [
        {"item_id": str(1000 + n), "position": n, "score": 4.712345, "source": "personal", "propensity": 1.0}
        for n in range(500)
    ]
    line = encode(replace(SERVED, items=Items.from_rows(rows)), "p", 1, 7)
    assert len(line) < len(expand(line)) / 4.5


def test_what_json_cannot_hold_is_refused() -> None:
    """A lone surrogate, an object that is no event, a foreign type inside: one kind of error."""
    bad: list[Any] = [
        replace(FEEDBACK, user_id="\ud800"),
        replace(FEEDBACK, value=float("nan")),
        replace(FEEDBACK, value=float("-inf")),
        {"class": "feedback"},
        replace(SERVED, items=Items([object()], [1.0])),  # type: ignore[list-item]  # wrong on purpose
    ]
    for event in bad:
        with pytest.raises(BadEventError):
            encode(event, "p", 1, 1)


COLUMNS = {"item_id": ["318"], "score": [4.71], "position": 0, "source": "personal", "propensity": 1.0}


def damaged(**changes: object) -> bytes:
    fields = orjson.loads(GOLDEN["served"][1])
    return orjson.dumps({**fields, **changes})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (damaged(schema=5), "schema 5"),
        (GOLDEN["feedback"][1].replace(b'"schema":1', b'"schema":2'), "schema 2"),
        (damaged(**{"class": "nonsense"}), "'nonsense'"),
        (damaged(**{"class": ["served"]}), "not a class"),
        (damaged(user_id=42), "'user_id'"),
        (damaged(seq="7"), "'seq'"),
        (damaged(request=[1]), "'request'"),
        (damaged(events_applied="3"), "'events_applied'"),
        (damaged(epoch=True), "'epoch'"),
        (damaged(received_at="yesterday"), "received_at"),
        (damaged(received_at="2026-13-21T01:02:03.456Z"), "received_at"),
        (damaged(received_at="../../../../../etc/pass"), "received_at"),
        (damaged(items=["318"]), "'items'"),
        (damaged(schema=1), "'items'"),
        (damaged(schema=1, items=["318"]), "item"),
        (damaged(schema=1, items=[{"item_id": "318"}]), "'position'"),
        (damaged(items={**COLUMNS, "score": [1, 2]}), "'score'"),
        (damaged(items={**COLUMNS, "score": ["1"]}), "'score'"),
        (damaged(items={**COLUMNS, "score": 1.0}), "'score'"),
        (damaged(items={**COLUMNS, "position": True}), "'position'"),
        (damaged(items={**COLUMNS, "source": ["personal", "popular"]}), "'source'"),
        (damaged(items={"item_id": ["318"]}), "'score'"),
        (orjson.dumps({"schema": 1, "class": "feedback"}), "no field 'event_id'"),
        (GOLDEN["system"][1].replace(b'"gap"', b'"nap"'), "'nap'"),
        (GOLDEN["feedback"][1].replace(b'"marks":[]', b'"marks":"odd"'), "'marks'"),
        (GOLDEN["feedback"][1].replace(b'"marks":[]', b'"marks":[1]'), "'marks'"),
    ],
)
def test_a_bad_line_is_refused_with_its_fault(line: bytes, problem: str) -> None:
    """The message names the fault, for the dead letter."""
    with pytest.raises(BadEventError, match=problem):
        decode(line)


def test_lists_of_older_schemas_decode_to_the_same_event_and_expand_to_schema_1() -> None:
    """Older archives stay readable, without request and live state, and a reader of schema 1 gets the same bytes."""
    line = GOLDEN["served"][1]
    third = line.replace(b'"schema":4', b'"schema":3').replace(
        b'"state_watermark":"q:2-9","events_applied":3,"catalogue_watermark":"q:1-2","request":{"n":1},', b""
    )
    second = (
        third.replace(b'"schema":3', b'"schema":2')
        .replace(b'"candidate_set"', b'"variant":null,"candidate_set"')
        .replace(b'"latency_ms"', b'"state_watermark":null,"latency_ms"')
    )
    first = (
        second.replace(b'"schema":2', b'"schema":1').partition(b'"items":')[0]
        + b'"items":[{"item_id":"318","position":0,"score":4.71,"source":"personal","propensity":1.0}]}\n'
    )
    assert decode(first) == decode(second) == decode(third)
    assert decode(third).event == replace(
        SERVED, state_watermark=None, events_applied=0, catalogue_watermark=None, request=None
    )
    assert expand(third) == expand(second) == expand(first) == first
    assert expand(GOLDEN["feedback"][1]) == GOLDEN["feedback"][1]
    with pytest.raises(BadEventError, match="'score'"):
        expand(line.replace(b"[4.71]", b"[]"))


def test_the_expansion_of_a_list_keeps_its_request_and_live_state() -> None:
    """Schema 1 of a line of schema 4 has its further fields, so that nothing is lost to an export."""
    line = GOLDEN["served"][1]
    expanded = orjson.loads(expand(line))
    assert (expanded["schema"], expanded["variant"]) == (1, None)
    assert {name: expanded[name] for name in ("state_watermark", "events_applied", "request")} == {
        "state_watermark": "q:2-9",
        "events_applied": 3,
        "request": {"n": 1},
    }
    assert decode(expand(line)) == decode(line)


def test_an_unknown_field_is_ignored() -> None:
    """A line with an additional field is read; the archive keeps its bytes."""
    assert decode(damaged(later="x")).event == SERVED


def test_lines_from_before_marks_have_none() -> None:
    """Both an archive of today and one of the first release read back."""
    marked = replace(FEEDBACK, marks=["unknown_item", "clock_skew"])
    assert decode(encode(marked, "p", 1, 7)).event == marked
    assert decode(GOLDEN["feedback"][1].replace(b',"marks":[]', b"")).event == FEEDBACK


@pytest.mark.parametrize("name", GOLDEN)
def test_renumbering_changes_only_the_position(name: str) -> None:
    """A renumbered line equals the line encoded at that position."""
    event, _ = GOLDEN[name]
    assert renumber(encode(event, "p", 1, 7), "q", 3, 1) == encode(event, "q", 3, 1)
