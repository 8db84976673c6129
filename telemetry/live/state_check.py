"""Compares a state snapshot with the archive: the state by its definition, computed anew.

The events of all users are held in memory, which suits a drill and not an archive of millions of users.
"""

from collections import defaultdict
from pathlib import Path
from typing import Final

from telemetry.batch import Position
from telemetry.errors import StateError
from telemetry.ids import rfc3339_ms
from telemetry.live.archive_tail import read_tail
from telemetry.live.event_layer import user_key
from telemetry.live.live_event import LiveEvent, last_events, live_event
from telemetry.live.state_snapshot import StateSnapshot

_DATE_LENGTH: Final = len("2026-11-21")
_START: Final = Position(0, 0)


def count_wrong_users(root: Path, directory: Path) -> int:
    """Return how many users have other events in a snapshot than in the archive, up to the marks of the snapshot.

    Args:
        root: The archive.
        directory: Of the snapshot.

    Raises:
        ArchiveError: The archive cannot be read.
        StateError: There is no snapshot, or it cannot be read.
    """
    snapshot = StateSnapshot.open(directory)
    if snapshot.stamp is None:
        raise StateError(f"There is no state snapshot in {directory}.")
    since_day = rfc3339_ms(snapshot.since_ms / 1000)[:_DATE_LENGTH]
    users: dict[str, list[LiveEvent]] = defaultdict(list)
    for record in read_tail(root, None, since_day):
        event = live_event(record, snapshot.manifest.types)
        is_included = Position(record.epoch, record.seq) <= snapshot.marks.get(record.producer, _START)
        if event is not None and is_included and event.time_ms >= snapshot.since_ms:
            users[event.user_id].append(event._replace(event_id=""))
    wrong = sum(
        snapshot.events(user_id) != last_events(events, snapshot.most_events) for user_id, events in users.items()
    )
    return wrong + len(snapshot.user_keys() - {user_key(user_id) for user_id in users})
