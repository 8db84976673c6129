"""Stream entries of producer `p`, and their sorting."""

from telemetry.batch import Batch, Entry, Position, to_fields
from telemetry.consumer.delivery_sorter import SortedDeliveries, sort_deliveries
from telemetry.consumer.event_reader import EventReader
from telemetry.events import Feedback, decode, encode
from telemetry.fingerprint import Fingerprints
from telemetry.stream.event_stream import Delivered

NOW = "2026-11-21T12:00:00.000Z"
RECEIVED = "2026-11-21T01:02:03.456Z"
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
    """Name the predecessor of an entry."""
    return Entry(one.entry_id, {**(one.fields or {}), b"after": str(after).encode()})


def fingerprint(text: bytes) -> bytes:
    event = decode(text).event
    assert isinstance(event, Feedback)
    return FINGERPRINTS.of_event(event)


def of_lines(epoch: int, first_seq: int, lines: list[bytes]) -> Entry:
    batch = Batch(epoch, first_seq, lines)
    return Entry(batch.entry_id, to_fields(batch))


def sort(
    at: Position, *entries: Entry, pending: bool = False, reader: EventReader | None = None, resends: int = 0
) -> SortedDeliveries:
    return sort_deliveries(
        [Delivered("p", entries)],
        {"p": at},
        reader or EventReader(),
        pending=pending,
        now=NOW,
        resends=lambda _producer, position: resends if position == at else 0,
    )


def numbers(found: SortedDeliveries) -> list[tuple[int, int]]:
    return [(record.epoch, record.seq) for record, _ in found.fresh]
