"""The live state by its definition: the last events of each user among all that the archive holds."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from telemetry.archive.archive_reader import read
from telemetry.events import ItemChange, Record, decode
from telemetry.live.live_event import DEFAULT_TYPES, LiveEvent, live_event


def live_state(
    root: Path, most: int = 100, since_ms: int = 0, types: Iterable[str] = DEFAULT_TYPES
) -> dict[str, list[LiveEvent]]:
    """Read the whole archive; the events of each user, without their ids."""
    users: dict[str, set[LiveEvent]] = defaultdict(set)
    for line in read(root, stored=True):
        event = live_event(decode(line), types)
        if event is not None and event.time_ms >= since_ms:
            users[event.user_id].add(event._replace(event_id=""))
    return {
        user: sorted(events, key=lambda event: (event.time_ms, event.position))[-most:]
        for user, events in users.items()
    }


def item_changes(root: Path) -> dict[str, Record]:
    """Read the last change of each item."""
    found: dict[str, Record] = {}
    for record in (decode(line) for line in read(root, stored=True)):
        if isinstance(record.event, ItemChange):
            other = found.get(record.event.item_id)
            if other is None or (other.event.received_at, *other[1:]) < (record.event.received_at, *record[1:]):
                found[record.event.item_id] = record
    return found
