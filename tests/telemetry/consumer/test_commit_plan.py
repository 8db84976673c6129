from dataclasses import replace
from typing import Any

from telemetry.batch import Position
from telemetry.catalogue.commit import ErasureRequest, Progress, RemovedRun
from telemetry.consumer.commit_plan import plan_commit
from telemetry.erasure.erasure import LateEventFilter, digest_of
from telemetry.events import Feedback, System, decode, encode
from telemetry.fingerprint import UNKNOWN
from tests.support import sample_events
from tests.support.live.deliveries import FINGERPRINTS, RECEIVED, entry, fingerprint, line, of_lines, sort

NO_LATE_EVENTS = LateEventFilter("", {})


def test_duplicated_feedback_is_removed_within_and_before_the_batch() -> None:
    """The first of several events with one id is archived, unless the archive has one already."""
    lines = [line(1, 1, "same-one"), line(1, 2, "same-one"), line(1, 3, "known-one"), line(1, 4)]
    found = sort(Position(0, 0), of_lines(1, 1, lines), pending=True)
    known = {("default", "known-one"): {fingerprint(lines[2])}}
    planned = plan_commit(found, known, NO_LATE_EVENTS, FINGERPRINTS)
    commit = planned.content
    assert [record.seq for record in planned.records] == [1, 4]
    assert commit.removed == [RemovedRun("p", 1, 2, 3, "deduplicated", RECEIVED)]
    assert commit.seen == [
        ("default", "same-one", fingerprint(lines[0])),
        ("default", "ev-0001-0004", fingerprint(lines[3])),
    ]
    assert planned.conflicts == 0
    assert commit.folders == {"date=2026-11-21": [lines[0], lines[3]]}
    assert found.progress == {("p", 1): Progress(4, archived=2, deduplicated=2)}


def test_an_id_that_stands_for_another_event_too_loses_none_of_them() -> None:
    """Of the same user they are marked; another user's is simply another event; each is removed when it comes again."""

    def click(seq: int, **changes: Any) -> bytes:
        return encode(sample_events.feedback(event_id="one-id-for-all", **changes), "p", 1, seq)

    lines = [
        click(1, item_id="a"),
        click(2, item_id="b", marks=["unknown_item"]).replace(b'"position"', b'"later":true,"position"'),
        click(3, item_id="a", user_id="43"),
        # The same again, as another replica received them.
        click(4, item_id="b", received_at="2026-11-21T01:02:09.000Z", request_id="r9"),
        click(5, item_id="a", user_id="43", marks=["unknown_item"]),
        click(6, item_id="a", client_time="2026-11-21T01:00:00.000Z"),
    ]
    found = sort(Position(0, 0), of_lines(1, 1, lines), pending=True)
    planned = plan_commit(found, {}, NO_LATE_EVENTS, FINGERPRINTS)
    assert [record.seq for record in planned.records] == [1, 2, 3, 6]
    assert [record.event.marks for record in planned.records if isinstance(record.event, Feedback)] == [
        [],
        ["unknown_item", "id_conflict"],
        [],
        ["id_conflict"],
    ]
    (texts,) = planned.content.folders.values()
    assert [decode(text) for text in texts] == planned.records
    assert texts[1] == lines[1].replace(b'"unknown_item"', b'"unknown_item","id_conflict"')
    assert (planned.conflicts, found.progress) == (2, {("p", 1): Progress(6, archived=4, deduplicated=2)})
    # In the next batch, too.
    later = sort(Position(1, 6), of_lines(1, 7, [click(7, item_id="b"), click(8, item_id="c")]), pending=True)
    seen = {("default", "one-id-for-all"): {one.fingerprint for one in planned.content.seen}}
    planned = plan_commit(later, seen, NO_LATE_EVENTS, FINGERPRINTS)
    assert ([record.seq for record in planned.records], planned.conflicts) == ([8], 1)


def test_item_changes_are_archived_once() -> None:
    """A repeated one is a duplicate; the same id for another record, another item or feedback is another event."""

    def put(seq: int, **changes: Any) -> bytes:
        return encode(sample_events.item_change(event_id="one-id-for-all", **changes), "p", 1, seq)

    lines = [
        put(1, attributes={"a": 1, "b": ["x"]}),
        put(2, attributes={"b": ["x"], "a": 1}, received_at="2026-11-21T01:02:09.000Z", request_id="r9"),
        put(3, attributes={"a": 2}),
        put(4, attributes={"a": 2}, kind="delete"),
        put(5, attributes={"a": 2}, item_id="42"),
        encode(sample_events.feedback(event_id="one-id-for-all", item_id="318"), "p", 1, 6),
        put(7, attributes={"a": 2}),
    ]
    found = sort(Position(0, 0), of_lines(1, 1, lines), pending=True)
    assert found.user_ids() == {"42"}
    assert found.seen_keys() == [("default", "one-id-for-all")] * 7
    filter_ = LateEventFilter("aa", {digest_of("aa", "42"): "2027-01-01T00:00:00.000Z"})
    planned = plan_commit(found, {}, filter_, FINGERPRINTS)
    assert [record.seq for record in planned.records] == [1, 3, 4, 5]
    assert found.progress == {("p", 1): Progress(7, archived=4, deduplicated=2, erased=1)}
    assert planned.content.folders == {"date=2026-11-21": [lines[0], *lines[2:5]]}
    assert planned.conflicts == 0


def test_an_id_without_a_fingerprint_matches_any_event() -> None:
    """As in the version that stored it."""
    found = sort(Position(0, 0), entry(1, 1, 1), pending=True)
    planned = plan_commit(found, {("default", "ev-0001-0001"): {UNKNOWN}}, NO_LATE_EVENTS, FINGERPRINTS)
    assert (planned.records, found.progress) == ([], {("p", 1): Progress(1, deduplicated=1)})


def test_events_go_to_the_date_they_were_received_on() -> None:
    """One batch around midnight fills two folders."""
    lines = [line(1, 1, day=21), line(1, 2, day=22)]
    commit = plan_commit(
        sort(Position(0, 0), of_lines(1, 1, lines), pending=True), {}, NO_LATE_EVENTS, FINGERPRINTS
    ).content
    assert commit.folders == {"date=2026-11-21": [lines[0]], "date=2026-11-22": [lines[1]]}
    assert [decode(text).seq for text in lines] == [1, 2]


def test_late_events_of_an_erased_user_are_counted_and_not_archived() -> None:
    """Those received up to the request; the user may come back, and others are not concerned."""
    late_events = LateEventFilter("00", {digest_of("00", "42"): RECEIVED})
    other = encode(sample_events.feedback(user_id="43"), "p", 1, 2)
    later = encode(sample_events.served(user_id="42", received_at="2026-11-21T01:02:03.457Z"), "p", 1, 3)
    userless = encode(sample_events.served(user_id=None), "p", 1, 4)
    found = sort(Position(0, 0), of_lines(1, 1, [line(1, 1), other, later, userless]), pending=True)
    planned = plan_commit(found, {}, late_events, FINGERPRINTS)
    assert [record.seq for record in planned.records] == [2, 3, 4]
    assert planned.content.removed == [RemovedRun("p", 1, 1, 1, "erased", RECEIVED)]
    assert planned.content.seen == [("default", "ev-00000002", fingerprint(other))]
    assert found.progress == {("p", 1): Progress(4, archived=3, erased=1)}


def test_an_erase_event_is_archived_without_the_user_id() -> None:
    """The line and the event have a digest; only the erasure request has the id."""
    salted = LateEventFilter("00", {})
    erase = System(
        event_id="erase-0001", tenant="default", client_time=None, received_at=RECEIVED, kind="erase", user_id="käthe"
    )
    planned = plan_commit(sort(Position(1, 0), of_lines(1, 1, [encode(erase, "p", 1, 1)])), {}, salted, FINGERPRINTS)
    digest = digest_of("00", "käthe")
    assert planned.content.erasures == [ErasureRequest("erase-0001", "käthe", digest, RECEIVED)]
    (text,) = planned.content.folders["date=2026-11-21"]
    assert text == encode(replace(erase, user_id=f"digest:{digest}"), "p", 1, 1)
    assert [decode(text)] == planned.records
