from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from telemetry.archive.archive_files import DEAD_LETTERS
from telemetry.batch import Batch, Entry, Position, to_fields
from telemetry.catalogue.commit import ErasureRequest, Progress, RemovedRun
from telemetry.consumer.event_reader import EventReader
from telemetry.consumer.intake import SortedDeliveries, plan_commit, sort_deliveries
from telemetry.erasure.erasure import LateEventFilter
from telemetry.events import Feedback, Record, System, decode, encode
from telemetry.fingerprint import UNKNOWN, Fingerprints
from telemetry.notes import SequenceGapFound
from telemetry.stream.event_stream import Delivered
from tests.support import sample_events

NOW = "2026-11-21T12:00:00.000Z"
RECEIVED = "2026-11-21T01:02:03.456Z"
NOBODY = LateEventFilter("", {})
FINGERPRINTS = Fingerprints(b"key")


def line(epoch: int, seq: int, event_id: str | None = None, day: int = 21) -> bytes:
    event = Feedback(
        event_id=event_id or f"ev-{epoch:04d}-{seq:04d}",
        tenant="default",
        client_time=None,
        received_at=f"2026-11-{day}T01:02:03.456Z",
        request_id="r",
        type="click",
        user_id="42",
        item_id="318",
        value=None,
        recommendation_id=None,
        position=None,
        marks=[],
    )
    return encode(event, "p", epoch, seq)


def entry(epoch: int, first_seq: int, last_seq: int) -> Entry:
    batch = Batch(epoch, first_seq, [line(epoch, seq) for seq in range(first_seq, last_seq + 1)])
    return Entry(batch.entry_id, to_fields(batch))


def linked(one: Entry, after: Position) -> Entry:
    """Have the producer say that it holds nothing between a place and an entry."""
    return Entry(one.entry_id, {**(one.fields or {}), b"after": str(after).encode()})


def fingerprint(text: bytes) -> bytes:
    event = decode(text).event
    assert isinstance(event, Feedback)
    return FINGERPRINTS.of_event(event)


def of_lines(epoch: int, first_seq: int, lines: list[bytes]) -> Entry:
    batch = Batch(epoch, first_seq, lines)
    return Entry(batch.entry_id, to_fields(batch))


def take(
    at: Position, *entries: Entry, pending: bool = False, reader: EventReader | None = None, asked: int = 0
) -> SortedDeliveries:
    return sort_deliveries(
        [Delivered("p", entries)],
        {"p": at},
        reader or EventReader(),
        pending=pending,
        now=NOW,
        asked=lambda _producer, place: asked if place == at else 0,
    )


def numbers(intake: SortedDeliveries) -> list[tuple[int, int]]:
    return [(record.epoch, record.seq) for record, _ in intake.fresh]


def test_events_above_the_watermark_are_new_and_only_they() -> None:
    """Dedupe is per event: an entry that overlaps the watermark is taken from there on."""
    intake = take(Position(1, 4), entry(1, 1, 3), entry(1, 2, 6), entry(1, 7, 8))
    assert numbers(intake) == [(1, 5), (1, 6), (1, 7), (1, 8)]
    assert intake.settled == {"p": ["1-3", "1-6", "1-8"]}
    assert intake.progress == {("p", 1): Progress(8)}
    assert not intake.recheck


BREAKS = [entry(1, 7, 8), entry(2, 1, 2), Entry("1-8", {b"x": b"y"})]


@pytest.mark.parametrize("after", BREAKS)
def test_a_break_is_believed_only_from_the_pending_list(after: Entry) -> None:
    """A jump in new entries may be what a frozen predecessor took; first the pending list is asked."""
    intake = take(Position(1, 4), after, entry(2, 3, 4), asked=3)
    assert (intake.recheck, intake.settled, intake.fresh, intake.gaps) == ({"p"}, {"p": []}, [], {})
    intake = take(Position(1, 4), after, pending=True, asked=3)
    assert (intake.recheck, intake.settled, intake.gaps) == (set(), {"p": [after.entry_id]}, {})


@pytest.mark.parametrize("after", [*BREAKS, linked(entry(1, 7, 8), Position(1, 5)), linked(BREAKS[1], Position(1, 9))])
def test_nothing_beyond_a_gap_is_taken_before_the_producer_was_asked_for_it(after: Entry) -> None:
    """What lies before it is archived; the watermark stays there, and the entries behind it are left alone."""
    intake = take(Position(1, 2), entry(1, 3, 4), after, entry(2, 3, 4), pending=True)
    assert (numbers(intake), intake.settled) == ([(1, 3), (1, 4)], {"p": ["1-4"]})
    assert (intake.gaps, intake.dead, intake.removed) == ({"p": Position(1, 4)}, [], [])
    assert intake.progress == {("p", 1): Progress(4)}


def test_a_gap_in_what_the_producer_says_it_holds_is_never_taken_for_a_hole() -> None:
    """However often it was asked; that it holds nothing is only may_pass_gap from itself."""
    lost = linked(entry(1, 7, 8), Position(1, 6))
    assert take(Position(1, 4), lost, pending=True, asked=100).gaps == {"p": Position(1, 4)}
    assert numbers(take(Position(1, 6), lost, pending=True)) == [(1, 7), (1, 8)]
    damaged = linked(entry(1, 7, 8), Position(1, 3))
    assert take(Position(1, 4), damaged, pending=True).progress == {("p", 1): Progress(8, missing=2, holes=1)}


def test_the_first_entry_of_all_follows_nothing() -> None:
    """Older versions did not say so, and there is nothing that could be missing."""
    assert numbers(take(Position(0, 0), entry(1, 1, 2), pending=True)) == [(1, 1), (1, 2)]
    assert take(Position(0, 0), entry(2, 1, 2), pending=True).gaps == {"p": Position(0, 0)}


def test_a_real_hole_is_counted_and_passed() -> None:
    """Events that never came are missing, the rest is archived."""
    entries = (linked(entry(1, 7, 8), Position(1, 4)), linked(entry(2, 3, 3), Position(1, 8)))
    intake = take(Position(1, 4), *entries, pending=True)
    assert numbers(intake) == [(1, 7), (1, 8), (2, 3)]
    assert intake.progress[("p", 1)] == Progress(8, missing=2, holes=1)
    assert intake.progress[("p", 2)] == Progress(3, missing=2, holes=1)
    assert intake.notes == [SequenceGapFound("p", 1, 4, 2), SequenceGapFound("p", 2, 0, 2)]
    assert intake.removed == [RemovedRun("p", 1, 5, 6, "missing", None), RemovedRun("p", 2, 1, 2, "missing", None)]


def test_what_cannot_be_read_becomes_a_dead_letter_and_blocks_nothing() -> None:
    """One bad line, one line of somebody else, one broken entry: each is kept with its reason."""
    mixed = of_lines(1, 5, [b"{nonsense\n", line(1, 6), line(9, 9), b"\xff\n"])
    broken = Entry("1-10", {**to_fields(Batch(1, 9, [line(1, 9), line(1, 10)])), b"crc32": b"00000000"})
    intake = sort_deliveries(
        [Delivered("p", [mixed, broken, entry(1, 11, 11)])],
        {"p": Position(1, 4)},
        EventReader(),
        pending=True,
        now=NOW,
        asked=lambda _producer, at: 3 if at == Position(1, 8) else 0,
    )
    assert numbers(intake) == [(1, 6), (1, 11)]
    assert intake.progress == {("p", 1): Progress(11, dead_lettered=5)}
    letters = [orjson.loads(text) for text in intake.dead]
    assert [(letter["entry_id"], letter["seq"]) for letter in letters] == [
        ("1-8", 5),
        ("1-8", 7),
        ("1-8", 8),
        ("1-10", None),
    ]
    assert [(letter["first_seq"], letter["tries"]) for letter in letters] == [(5, 1), (7, 1), (8, 1), (9, 1)]
    assert len({letter["letter_id"] for letter in letters}) == 4
    assert intake.removed == [
        RemovedRun("p", 1, 5, 5, "dead_lettered", None),
        RemovedRun("p", 1, 7, 10, "dead_lettered", None),
    ]
    assert letters[0]["data"] == "{nonsense\n"
    assert "event 9-9 of p" in letters[1]["reason"]
    assert (letters[2]["data"], letters[2]["data_base64"]) == (None, "/wo=")
    assert "checksum" in letters[3]["reason"]
    commit = plan_commit(intake, {}, NOBODY, FINGERPRINTS).added
    assert len(commit.folders[DEAD_LETTERS]) == 4
    assert intake.progress == {("p", 1): Progress(11, archived=2, dead_lettered=5)}


@pytest.mark.parametrize("place", [f"{2**64 - 1}-1", f"{2**53}-1", f"1-{2**63}"])
def test_an_id_out_of_this_world_never_moves_the_watermark(place: str) -> None:
    """However often it comes: it would hide every event to come."""
    intake = take(Position(1, 4), Entry(place, {b"x": b"y"}), pending=True, asked=10**9)
    assert (intake.dead, intake.progress, intake.gaps) == ([], {}, {"p": Position(1, 4)})


def test_an_entry_trimmed_while_pending_is_let_go() -> None:
    """It is acknowledged and counted; what is missing shows as a gap at the next entry."""
    intake = take(Position(1, 4), Entry("1-6", None), entry(1, 7, 7), pending=True)
    assert (intake.trimmed, intake.settled, intake.gaps) == (1, {"p": ["1-6"]}, {"p": Position(1, 4)})


def test_duplicated_feedback_is_removed_within_and_before_the_batch() -> None:
    """The first of several events with one id is archived, unless the archive has one already."""
    lines = [line(1, 1, "same-one"), line(1, 2, "same-one"), line(1, 3, "known-one"), line(1, 4)]
    intake = take(Position(0, 0), of_lines(1, 1, lines), pending=True)
    known = {("default", "known-one"): {fingerprint(lines[2])}}
    planned = plan_commit(intake, known, NOBODY, FINGERPRINTS)
    commit = planned.added
    assert [record.seq for record in planned.records] == [1, 4]
    assert commit.removed == [RemovedRun("p", 1, 2, 3, "deduplicated", RECEIVED)]
    assert commit.seen == [
        ("default", "same-one", fingerprint(lines[0])),
        ("default", "ev-0001-0004", fingerprint(lines[3])),
    ]
    assert planned.conflicts == 0
    assert commit.folders == {"date=2026-11-21": [lines[0], lines[3]]}
    assert intake.progress == {("p", 1): Progress(4, archived=2, deduplicated=2)}


def test_an_id_that_stands_for_another_event_too_loses_none_of_them() -> None:
    """Of the same user they are marked; another user's is simply another event; each is removed when it comes again."""

    def said(seq: int, **changes: Any) -> bytes:
        return encode(sample_events.feedback(event_id="one-id-for-all", **changes), "p", 1, seq)

    lines = [
        said(1, item_id="a"),
        said(2, item_id="b", marks=["unknown_item"]).replace(b'"position"', b'"later":true,"position"'),
        said(3, item_id="a", user_id="43"),
        # The same again, as another replica received them.
        said(4, item_id="b", received_at="2026-11-21T01:02:09.000Z", request_id="r9"),
        said(5, item_id="a", user_id="43", marks=["unknown_item"]),
        said(6, item_id="a", client_time="2026-11-21T01:00:00.000Z"),
    ]
    intake = take(Position(0, 0), of_lines(1, 1, lines), pending=True)
    planned = plan_commit(intake, {}, NOBODY, FINGERPRINTS)
    assert [record.seq for record in planned.records] == [1, 2, 3, 6]
    assert [record.event.marks for record in planned.records if isinstance(record.event, Feedback)] == [
        [],
        ["unknown_item", "id_conflict"],
        [],
        ["id_conflict"],
    ]
    (texts,) = planned.added.folders.values()
    assert [decode(text) for text in texts] == planned.records
    assert texts[1] == lines[1].replace(b'"unknown_item"', b'"unknown_item","id_conflict"')
    assert (planned.conflicts, intake.progress) == (2, {("p", 1): Progress(6, archived=4, deduplicated=2)})
    # In the next batch, too.
    later = take(Position(1, 6), of_lines(1, 7, [said(7, item_id="b"), said(8, item_id="c")]), pending=True)
    seen = {("default", "one-id-for-all"): {one.fingerprint for one in planned.added.seen}}
    planned = plan_commit(later, seen, NOBODY, FINGERPRINTS)
    assert ([record.seq for record in planned.records], planned.conflicts) == ([8], 1)


def test_an_id_of_which_only_the_name_is_known_stands_for_whatever_comes_under_it() -> None:
    """As it did for the version that remembered it."""
    intake = take(Position(0, 0), entry(1, 1, 1), pending=True)
    planned = plan_commit(intake, {("default", "ev-0001-0001"): {UNKNOWN}}, NOBODY, FINGERPRINTS)
    assert (planned.records, intake.progress) == ([], {("p", 1): Progress(1, deduplicated=1)})


def test_events_go_to_the_date_they_were_received_on() -> None:
    """One batch around midnight fills two folders."""
    lines = [line(1, 1, day=21), line(1, 2, day=22)]
    commit = plan_commit(take(Position(0, 0), of_lines(1, 1, lines), pending=True), {}, NOBODY, FINGERPRINTS).added
    assert commit.folders == {"date=2026-11-21": [lines[0]], "date=2026-11-22": [lines[1]]}
    assert [decode(text).seq for text in lines] == [1, 2]


def refuse(*seqs: int) -> Callable[[Record], None]:
    def check(record: Record) -> None:
        if record.seq in seqs:
            raise ZeroDivisionError("oops")

    return check


def test_an_event_that_fails_holds_up_its_producer_for_three_rounds_and_is_buried() -> None:
    """What lies before it is taken at once; events behind it that fail too have had their tries by then."""
    reader = EventReader(refuse(3, 6, 8))
    entries = (entry(1, 1, 4), entry(1, 5, 8))
    first = take(Position(0, 0), *entries, pending=True, reader=reader)
    assert (numbers(first), first.settled, first.recheck) == ([(1, 1), (1, 2)], {"p": []}, {"p"})
    assert first.progress == {("p", 1): Progress(2)}
    second = take(Position(1, 2), *entries, pending=True, reader=reader)
    assert (numbers(second), second.progress, second.recheck, reader.failing) == ([], {}, {"p"}, True)
    third = take(Position(1, 2), *entries, pending=True, reader=reader)
    assert (numbers(third), third.settled) == ([(1, 4), (1, 5), (1, 7)], {"p": ["1-4", "1-8"]})
    assert third.progress == {("p", 1): Progress(8, dead_lettered=3)}
    letters = [orjson.loads(text) for text in third.dead]
    assert [(letter["seq"], letter["tries"], letter["reason"]) for letter in letters] == [
        (seq, 3, "ZeroDivisionError: oops") for seq in (3, 6, 8)
    ]
    assert (third.recheck, reader.failing) == (set(), False)


def test_an_event_that_fails_once_is_archived_the_next_time() -> None:
    """A failure that passes leaves no trace."""
    failures = [True]

    def check(_record: Record) -> None:
        if failures:
            failures.pop()
            raise MemoryError

    reader = EventReader(check)
    assert numbers(take(Position(1, 0), entry(1, 1, 1), reader=reader)) == []
    intake = take(Position(0, 0), entry(1, 1, 1), pending=True, reader=reader)
    assert (numbers(intake), intake.dead, reader.failing) == ([(1, 1)], [], False)


def test_one_failing_producer_does_not_hold_up_another() -> None:
    """The watermark stands for the one only."""

    def check(record: Record) -> None:
        if record.producer == "p":
            raise ZeroDivisionError

    theirs = encode(sample_events.feedback(), "q", 1, 1)
    deliveries = [Delivered("p", [entry(1, 1, 1)]), Delivered("q", [of_lines(1, 1, [theirs])])]
    intake = sort_deliveries(deliveries, {}, EventReader(check), pending=True, now=NOW)
    assert (numbers(intake), intake.settled) == ([(1, 1)], {"p": [], "q": ["1-1"]})


def test_an_event_that_killed_its_consumers_is_not_touched() -> None:
    """It is buried unread, and its neighbours are archived."""
    touched = []
    reader = EventReader(lambda record: touched.append(record.seq))
    reader.mark_fatal([("p", 1, 2)])
    intake = take(Position(0, 0), entry(1, 1, 3), pending=True, reader=reader)
    assert (numbers(intake), touched) == ([(1, 1), (1, 3)], [1, 3])
    (letter,) = [orjson.loads(text) for text in intake.dead]
    assert (letter["seq"], letter["tries"], letter["data"]) == (2, 3, line(1, 2).decode())


def test_events_of_a_forgotten_user_are_counted_and_not_archived() -> None:
    """Those received up to the request; the user may come back, and others are not concerned."""
    forgotten = LateEventFilter("00", {LateEventFilter("00", {}).digest("42"): RECEIVED})
    other = encode(sample_events.feedback(user_id="43"), "p", 1, 2)
    later = encode(sample_events.served(user_id="42", received_at="2026-11-21T01:02:03.457Z"), "p", 1, 3)
    nobody = encode(sample_events.served(user_id=None), "p", 1, 4)
    intake = take(Position(0, 0), of_lines(1, 1, [line(1, 1), other, later, nobody]), pending=True)
    planned = plan_commit(intake, {}, forgotten, FINGERPRINTS)
    assert [record.seq for record in planned.records] == [2, 3, 4]
    assert planned.added.removed == [RemovedRun("p", 1, 1, 1, "erased", RECEIVED)]
    assert planned.added.seen == [("default", "ev-00000002", fingerprint(other))]
    assert intake.progress == {("p", 1): Progress(4, archived=3, erased=1)}


def test_an_erase_is_archived_without_the_id_of_whom_it_forgets() -> None:
    """The line and the event have a digest; the id is in the order to forget alone."""
    salted = LateEventFilter("00", {})
    erase = System(
        event_id="erase-0001", tenant="default", client_time=None, received_at=RECEIVED, kind="erase", user_id="käthe"
    )
    planned = plan_commit(take(Position(1, 0), of_lines(1, 1, [encode(erase, "p", 1, 1)])), {}, salted, FINGERPRINTS)
    digest = salted.digest("käthe")
    assert planned.added.erasures == [ErasureRequest("erase-0001", "käthe", digest, RECEIVED)]
    (text,) = planned.added.folders["date=2026-11-21"]
    assert text == encode(replace(erase, user_id=f"digest:{digest}"), "p", 1, 1)
    assert [decode(text)] == planned.records
