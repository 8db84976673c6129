import orjson
import pytest

from telemetry.batch import Batch, Entry, Position, to_fields
from telemetry.catalogue import Progress
from telemetry.events import Feedback, decode, encode
from telemetry.intake import Intake, plan, sift
from telemetry.notes import HoleFound
from telemetry.parts import DEAD_LETTERS
from telemetry.stream import Delivered

NOW = "2026-11-21T12:00:00.000Z"


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
    )
    return encode(event, "p", epoch, seq)


def entry(epoch: int, first_seq: int, last_seq: int) -> Entry:
    batch = Batch(epoch, first_seq, [line(epoch, seq) for seq in range(first_seq, last_seq + 1)])
    return Entry(batch.entry_id, to_fields(batch))


def of_lines(epoch: int, first_seq: int, lines: list[bytes]) -> Entry:
    batch = Batch(epoch, first_seq, lines)
    return Entry(batch.entry_id, to_fields(batch))


def take(at: Position, *entries: Entry, pending: bool = False) -> Intake:
    return sift([Delivered("p", entries)], {"p": at}, pending=pending, now=NOW)


def numbers(intake: Intake) -> list[tuple[int, int]]:
    return [(record.epoch, record.seq) for record, _ in intake.fresh]


def test_events_above_the_watermark_are_new_and_only_they() -> None:
    """Dedupe is per event: an entry that overlaps the watermark is taken from there on."""
    intake = take(Position(1, 4), entry(1, 1, 3), entry(1, 2, 6), entry(1, 7, 8))
    assert numbers(intake) == [(1, 5), (1, 6), (1, 7), (1, 8)]
    assert intake.settled == {"p": ["1-3", "1-6", "1-8"]}
    assert intake.progress == {("p", 1): Progress(8)}
    assert not intake.recheck


@pytest.mark.parametrize("after", [entry(1, 7, 8), entry(2, 1, 2), Entry("1-8", {b"x": b"y"})])
def test_a_break_is_believed_only_from_the_pending_list(after: Entry) -> None:
    """A jump in new entries may be what a frozen predecessor took; first the pending list is asked."""
    intake = take(Position(1, 4), after, entry(2, 3, 4))
    assert (intake.recheck, intake.settled, intake.fresh) == ({"p"}, {"p": []}, [])
    intake = take(Position(1, 4), after, pending=True)
    assert (intake.recheck, intake.settled) == (set(), {"p": [after.entry_id]})


def test_a_real_hole_is_counted_and_passed() -> None:
    """Events that never came are missing, the rest is archived."""
    intake = take(Position(1, 4), entry(1, 7, 8), entry(2, 3, 3), pending=True)
    assert numbers(intake) == [(1, 7), (1, 8), (2, 3)]
    assert intake.progress[("p", 1)] == Progress(8, missing=2, holes=1)
    assert intake.progress[("p", 2)] == Progress(3, missing=2, holes=1)
    assert intake.notes == [HoleFound("p", 1, 4, 2), HoleFound("p", 2, 0, 2)]


def test_what_cannot_be_read_becomes_a_dead_letter_and_blocks_nothing() -> None:
    """One bad line, one line of somebody else, one broken entry: each is kept with its reason."""
    mixed = of_lines(1, 5, [b"{nonsense\n", line(1, 6), line(9, 9), b"\xff\n"])
    broken = Entry("1-10", {**to_fields(Batch(1, 9, [line(1, 9), line(1, 10)])), b"crc32": b"00000000"})
    intake = take(Position(1, 4), mixed, broken, entry(1, 11, 11), pending=True)
    assert numbers(intake) == [(1, 6), (1, 11)]
    assert intake.progress == {("p", 1): Progress(11, dead_lettered=5)}
    letters = [orjson.loads(text) for text in intake.dead]
    assert [(letter["entry_id"], letter["seq"]) for letter in letters] == [
        ("1-8", 5),
        ("1-8", 7),
        ("1-8", 8),
        ("1-10", None),
    ]
    assert letters[0]["data"] == "{nonsense\n"
    assert "event 9-9 of p" in letters[1]["reason"]
    assert (letters[2]["data"], letters[2]["data_base64"]) == (None, "/wo=")
    assert "checksum" in letters[3]["reason"]
    commit = plan(intake, set())
    assert len(commit.folders[DEAD_LETTERS]) == 4
    assert intake.progress == {("p", 1): Progress(11, archived=2, dead_lettered=5)}


def test_an_id_out_of_this_world_is_buried_without_moving_the_watermark() -> None:
    """It would otherwise hide every event to come."""
    intake = take(Position(1, 4), Entry(f"{2**64 - 1}-1", {b"x": b"y"}), pending=True)
    assert (len(intake.dead), intake.progress) == (1, {})
    assert intake.settled == {"p": [f"{2**64 - 1}-1"]}


def test_an_entry_trimmed_while_pending_is_let_go() -> None:
    """It is acknowledged and counted; what is missing shows as a hole at the next entry."""
    intake = take(Position(1, 4), Entry("1-6", None), entry(1, 7, 7), pending=True)
    assert (intake.trimmed, intake.settled) == (1, {"p": ["1-6", "1-7"]})
    assert intake.progress[("p", 1)].missing == 2


def test_duplicated_feedback_is_removed_within_and_before_the_batch() -> None:
    """The first of several events with one id is archived, unless the archive has one already."""
    lines = [line(1, 1, "same-one"), line(1, 2, "same-one"), line(1, 3, "known-one"), line(1, 4)]
    intake = take(Position(0, 0), of_lines(1, 1, lines), pending=True)
    commit = plan(intake, {("default", "known-one")})
    assert [record.seq for record in commit.records] == [1, 4]
    assert commit.seen == [("default", "same-one"), ("default", "ev-0001-0004")]
    assert commit.folders == {"date=2026-11-21": [lines[0], lines[3]]}
    assert intake.progress == {("p", 1): Progress(4, archived=2, deduplicated=2)}


def test_events_go_to_the_date_they_were_received_on() -> None:
    """One batch around midnight fills two folders."""
    lines = [line(1, 1, day=21), line(1, 2, day=22)]
    commit = plan(take(Position(0, 0), of_lines(1, 1, lines), pending=True), set())
    assert commit.folders == {"date=2026-11-21": [lines[0]], "date=2026-11-22": [lines[1]]}
    assert [decode(text).seq for text in lines] == [1, 2]
