import pytest

from telemetry.batch import EventPosition, Position
from telemetry.errors import BadBatchError
from telemetry.events import Feedback, Record, encode
from telemetry.live.feed_entry import ErasedUser, FeedEntry, decode_entry, encode_entry
from telemetry.live.live_event import LIVE_TYPES, LiveEvent, last_events, live_event, unix_ms
from tests.support import sample_events

RECEIVED = "2026-11-21T01:02:03.456Z"


def live(**changes: object) -> LiveEvent | None:
    event: Feedback = sample_events.feedback(received_at=RECEIVED, **changes)
    return live_event(Record(event, "p", 1, 7))


def test_feedback_becomes_a_live_event() -> None:
    """With its position as identity and both times in milliseconds."""
    received_ms = 1_795_222_923_456
    assert live(type="rating", value=4.5) == LiveEvent(
        "42", "318", "rating", 4.5, received_ms, received_ms, "ev-00000002", EventPosition("p", 1, 7)
    )


@pytest.mark.parametrize(
    ("client_time", "marks", "time_ms"),
    [
        ("2026-11-21T01:00:00.001Z", [], unix_ms("2026-11-21T01:00:00.001Z")),
        ("2026-11-21T01:02:04.000Z", [], unix_ms(RECEIVED)),
        ("2026-11-01T01:00:00.000Z", ["clock_skew"], unix_ms(RECEIVED)),
        ("no time at all", [], unix_ms(RECEIVED)),
        (None, ["unknown_item"], unix_ms(RECEIVED)),
    ],
)
def test_the_time_is_the_clients_unless_it_cannot_be(client_time: str | None, marks: list[str], time_ms: int) -> None:
    """Never after the receipt, and not a skewed clock's: the rule of training on the archive."""
    event = live(client_time=client_time, marks=marks)
    assert event is not None
    assert (event.time_ms, event.received_ms) == (time_ms, unix_ms(RECEIVED))


def test_what_is_not_live() -> None:
    """Conflicts, impressions unless asked for, and events that are no feedback."""
    assert live(marks=["id_conflict"]) is None
    assert live(type="impression") is None
    event = sample_events.feedback(type="impression")
    assert live_event(Record(event, "p", 1, 7), LIVE_TYPES) is not None
    assert live_event(Record(sample_events.served(), "p", 1, 7)) is None


def test_times_are_read_to_the_millisecond() -> None:
    """The epoch, a leap year and a leap second."""
    assert unix_ms("1970-01-01T00:00:00.001Z") == 1
    assert unix_ms("2024-02-29T12:00:00.000Z") == 1_709_208_000_000
    assert unix_ms("2016-12-31T23:59:60.500Z") == unix_ms("2017-01-01T00:00:00.500Z")


def test_the_last_events_do_not_depend_on_the_order_of_arrival() -> None:
    """A set by position, sorted by (time, position)."""
    events = [
        LiveEvent("u", str(seq), "view", None, time_ms, time_ms, "", EventPosition("p", 1, seq))
        for seq, time_ms in ((1, 5), (2, 3), (3, 5), (4, 1))
    ]
    assert [event.position.seq for event in last_events([*events, *reversed(events)], 3)] == [2, 1, 3]


def test_a_feed_entry_reads_back() -> None:
    """Events of several producers, erasures, lines and marks; a heartbeat is empty."""
    event = live(type="rating", value=0.1)
    assert event is not None
    other = event._replace(position=EventPosition("q", 2, 1), user_id="ü\n", value=None, received_ms=event.time_ms + 5)
    line = encode(sample_events.feedback(), "p", 1, 8)
    entry = FeedEntry([event, other], [ErasedUser("x", 9)], [line], {"p": Position(1, 8)})
    assert decode_entry(encode_entry(entry)) == entry
    assert entry.item_changes()[0].seq == 8
    assert decode_entry(encode_entry(FeedEntry())) == FeedEntry()


@pytest.mark.parametrize("data", [b"", b"[]", b'{"v":2}', b'{"v":1,"events":[1]}', b'{"v":1,"marks":[]}'])
def test_other_bytes_are_no_entry(data: bytes) -> None:
    """Another client's entry, or a later version's."""
    with pytest.raises(BadBatchError):
        decode_entry(data)
