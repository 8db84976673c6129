from collections.abc import Callable

import orjson
import pytest

from telemetry.archive.archive_files import DEAD_LETTERS
from telemetry.batch import Batch, Entry, EventPosition, Position, to_fields
from telemetry.catalogue.commit import Progress, RemovedRun
from telemetry.consumer.commit_plan import plan_commit
from telemetry.consumer.delivery_sorter import sort_deliveries
from telemetry.consumer.event_reader import EventReader
from telemetry.erasure.erasure import LateEventFilter
from telemetry.events import Record, encode
from telemetry.notes import SequenceGapFound
from telemetry.stream.event_stream import Delivered
from tests.support import sample_events
from tests.support.live.deliveries import (
    FINGERPRINTS,
    NOW,
    entry,
    line,
    linked,
    numbers,
    of_lines,
    sort,
)


def test_events_above_the_watermark_are_new_and_only_they() -> None:
    """Deduplication is per event: an entry that overlaps the watermark is read from there on."""
    found = sort(Position(1, 4), entry(1, 1, 3), entry(1, 2, 6), entry(1, 7, 8))
    assert numbers(found) == [(1, 5), (1, 6), (1, 7), (1, 8)]
    assert found.to_acknowledge == {"p": ["1-3", "1-6", "1-8"]}
    assert found.progress == {("p", 1): Progress(8)}
    assert not found.recheck


BREAKS = [entry(1, 7, 8), entry(2, 1, 2), Entry("1-8", {b"x": b"y"})]


@pytest.mark.parametrize("after", BREAKS)
def test_a_break_is_passed_only_from_the_pending_list(after: Entry) -> None:
    """A jump in new entries may be entries that a frozen consumer read; the pending list is read first."""
    found = sort(Position(1, 4), after, entry(2, 3, 4), resends=3)
    assert (found.recheck, found.to_acknowledge, found.fresh, found.gaps) == ({"p"}, {"p": []}, [], {})
    found = sort(Position(1, 4), after, pending=True, resends=3)
    assert (found.recheck, found.to_acknowledge, found.gaps) == (set(), {"p": [after.entry_id]}, {})


@pytest.mark.parametrize("after", [*BREAKS, linked(entry(1, 7, 8), Position(1, 5)), linked(BREAKS[1], Position(1, 9))])
def test_nothing_beyond_a_gap_is_read_before_the_producer_was_asked_for_it(after: Entry) -> None:
    """Entries before it are archived; the watermark stays there, and the entries behind it are not read."""
    found = sort(Position(1, 2), entry(1, 3, 4), after, entry(2, 3, 4), pending=True)
    assert (numbers(found), found.to_acknowledge) == ([(1, 3), (1, 4)], {"p": ["1-4"]})
    assert (found.gaps, found.dead_letters, found.removed) == ({"p": Position(1, 4)}, [], [])
    assert found.progress == {("p", 1): Progress(4)}


def test_a_gap_in_entries_that_the_producer_holds_is_never_passed_as_a_hole() -> None:
    """Even after many resends: only the producer can state that it holds nothing."""
    lost = linked(entry(1, 7, 8), Position(1, 6))
    assert sort(Position(1, 4), lost, pending=True, resends=100).gaps == {"p": Position(1, 4)}
    assert numbers(sort(Position(1, 6), lost, pending=True)) == [(1, 7), (1, 8)]
    damaged = linked(entry(1, 7, 8), Position(1, 3))
    assert sort(Position(1, 4), damaged, pending=True).progress == {("p", 1): Progress(8, missing=2, holes=1)}


def test_the_first_entry_of_all_follows_nothing() -> None:
    """Older versions name no predecessor, and nothing can be missing."""
    assert numbers(sort(Position(0, 0), entry(1, 1, 2), pending=True)) == [(1, 1), (1, 2)]
    assert sort(Position(0, 0), entry(2, 1, 2), pending=True).gaps == {"p": Position(0, 0)}


def test_a_real_hole_is_counted_and_passed() -> None:
    """Events that were never delivered are missing, the rest is archived."""
    entries = (linked(entry(1, 7, 8), Position(1, 4)), linked(entry(2, 3, 3), Position(1, 8)))
    found = sort(Position(1, 4), *entries, pending=True)
    assert numbers(found) == [(1, 7), (1, 8), (2, 3)]
    assert found.progress[("p", 1)] == Progress(8, missing=2, holes=1)
    assert found.progress[("p", 2)] == Progress(3, missing=2, holes=1)
    assert found.notes == [SequenceGapFound("p", 1, 4, 2), SequenceGapFound("p", 2, 0, 2)]
    assert found.removed == [RemovedRun("p", 1, 5, 6, "missing", None), RemovedRun("p", 2, 1, 2, "missing", None)]


def test_unreadable_input_becomes_a_dead_letter_and_blocks_nothing() -> None:
    """One bad line, one line of another producer, one broken entry: each is kept with its reason."""
    mixed = of_lines(1, 5, [b"{nonsense\n", line(1, 6), line(9, 9), b"\xff\n"])
    broken = Entry("1-10", {**to_fields(Batch(1, 9, [line(1, 9), line(1, 10)])), b"crc32": b"00000000"})
    found = sort_deliveries(
        [Delivered("p", [mixed, broken, entry(1, 11, 11)])],
        {"p": Position(1, 4)},
        EventReader(),
        pending=True,
        now=NOW,
        resends=lambda _producer, at: 3 if at == Position(1, 8) else 0,
    )
    assert numbers(found) == [(1, 6), (1, 11)]
    assert found.progress == {("p", 1): Progress(11, dead_lettered=5)}
    letters = [orjson.loads(text) for text in found.dead_letters]
    assert [(letter["entry_id"], letter["seq"]) for letter in letters] == [
        ("1-8", 5),
        ("1-8", 7),
        ("1-8", 8),
        ("1-10", None),
    ]
    assert [(letter["first_seq"], letter["tries"]) for letter in letters] == [(5, 1), (7, 1), (8, 1), (9, 1)]
    assert len({letter["letter_id"] for letter in letters}) == 4
    assert found.removed == [
        RemovedRun("p", 1, 5, 5, "dead_lettered", None),
        RemovedRun("p", 1, 7, 10, "dead_lettered", None),
    ]
    assert letters[0]["data"] == "{nonsense\n"
    assert "event 9-9 of p" in letters[1]["reason"]
    assert (letters[2]["data"], letters[2]["data_base64"]) == (None, "/wo=")
    assert "checksum" in letters[3]["reason"]
    commit = plan_commit(found, {}, LateEventFilter("", {}), FINGERPRINTS).content
    assert len(commit.folders[DEAD_LETTERS]) == 4
    assert found.progress == {("p", 1): Progress(11, archived=2, dead_lettered=5)}


@pytest.mark.parametrize("entry_id", [f"{2**64 - 1}-1", f"{2**53}-1", f"1-{2**63}"])
def test_an_id_out_of_range_never_moves_the_watermark(entry_id: str) -> None:
    """However often it comes: it would hide every event to come."""
    found = sort(Position(1, 4), Entry(entry_id, {b"x": b"y"}), pending=True, resends=10**9)
    assert (found.dead_letters, found.progress, found.gaps) == ([], {}, {"p": Position(1, 4)})


def test_an_entry_trimmed_while_pending_is_settled() -> None:
    """It is acknowledged and counted; its events show as a gap at the next entry."""
    found = sort(Position(1, 4), Entry("1-6", None), entry(1, 7, 7), pending=True)
    assert (found.trimmed, found.to_acknowledge, found.gaps) == (1, {"p": ["1-6"]}, {"p": Position(1, 4)})


def refuse(*seqs: int) -> Callable[[Record], None]:
    def check(record: Record) -> None:
        if record.seq in seqs:
            raise ZeroDivisionError("oops")

    return check


def test_an_event_that_fails_holds_up_its_producer_for_three_rounds_and_is_dead_lettered() -> None:
    """Earlier events are archived at once; events behind it that fail too have had their tries by then."""
    reader = EventReader(refuse(3, 6, 8))
    entries = (entry(1, 1, 4), entry(1, 5, 8))
    first = sort(Position(0, 0), *entries, pending=True, reader=reader)
    assert (numbers(first), first.to_acknowledge, first.recheck) == ([(1, 1), (1, 2)], {"p": []}, {"p"})
    assert first.progress == {("p", 1): Progress(2)}
    second = sort(Position(1, 2), *entries, pending=True, reader=reader)
    assert (numbers(second), second.progress, second.recheck, reader.failing) == ([], {}, {"p"}, True)
    third = sort(Position(1, 2), *entries, pending=True, reader=reader)
    assert (numbers(third), third.to_acknowledge) == ([(1, 4), (1, 5), (1, 7)], {"p": ["1-4", "1-8"]})
    assert third.progress == {("p", 1): Progress(8, dead_lettered=3)}
    letters = [orjson.loads(text) for text in third.dead_letters]
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
    assert numbers(sort(Position(1, 0), entry(1, 1, 1), reader=reader)) == []
    found = sort(Position(0, 0), entry(1, 1, 1), pending=True, reader=reader)
    assert (numbers(found), found.dead_letters, reader.failing) == ([(1, 1)], [], False)


def test_one_failing_producer_does_not_hold_up_another() -> None:
    """The watermark stands for the one only."""

    def check(record: Record) -> None:
        if record.producer == "p":
            raise ZeroDivisionError

    of_q = encode(sample_events.feedback(), "q", 1, 1)
    deliveries = [Delivered("p", [entry(1, 1, 1)]), Delivered("q", [of_lines(1, 1, [of_q])])]
    found = sort_deliveries(deliveries, {}, EventReader(check), pending=True, now=NOW)
    assert (numbers(found), found.to_acknowledge) == ([(1, 1)], {"p": [], "q": ["1-1"]})


def test_an_event_that_killed_its_consumers_is_not_touched() -> None:
    """It becomes a dead letter unread, and its neighbours are archived."""
    touched = []
    reader = EventReader(lambda record: touched.append(record.seq))
    reader.mark_fatal([EventPosition("p", 1, 2)])
    found = sort(Position(0, 0), entry(1, 1, 3), pending=True, reader=reader)
    assert (numbers(found), touched) == ([(1, 1), (1, 3)], [1, 3])
    (letter,) = [orjson.loads(text) for text in found.dead_letters]
    assert (letter["seq"], letter["tries"], letter["data"]) == (2, 3, line(1, 2).decode())
