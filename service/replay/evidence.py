"""What the archive holds of served lists: the lists, and the events that they rest on.

Invariant: one scan reads the lists and one the events, however many lists there are. Only committed lines are read.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import numpy as np

from telemetry.archive.archive_snapshot import OpenFile, open_files
from telemetry.errors import BadEventError
from telemetry.events import SERVED_STARTS, Feedback, ItemChange, Record, Served, decode
from telemetry.live.live_event import LIVE_TYPES, LiveEvent, live_event

Progress = Callable[[int, int], None]
"""(lines read, lines in all)."""

_REPORT_EVERY_LINES: Final = 50_000
_UUID_VERSION_WITH_TIME: Final = 7
_UUID_TIME_SHIFT: Final = 80


@dataclass(frozen=True)
class Evidence:
    """The events that lists rest on.

    Attributes:
        live: By user: the archived events that may be live, in no order.
        items: The changes of items.
        actions: What users did with items that were changed, in no order.
    """

    live: dict[str, list[LiveEvent]] = field(default_factory=dict)
    items: list[Record] = field(default_factory=list)
    actions: list[LiveEvent] = field(default_factory=list)


def served_list(root: Path, recommendation_id: str, progress: Progress) -> Served | None:
    """Find a served list in the archive; None if it is not there.

    The date in the id tells where to look first; then the whole archive is read.
    """
    for folder in (*_folders_of(recommendation_id), None):
        found = next(_lists(root, folder, recommendation_id, progress), None)
        if found is not None:
            return found
    return None


def sampled_lists(root: Path, count: int, rng: np.random.Generator, progress: Progress) -> list[Served]:
    """Draw served lists at random, all if there are fewer (algorithm R: Vitter, ACM TOMS 11(1), 1985)."""
    lines: list[bytes] = []
    n_served = 0
    with open_files(root) as files:
        for line in _lines(files, progress):
            if not line.startswith(SERVED_STARTS):
                continue
            place = n_served if n_served < count else int(rng.integers(0, n_served + 1))
            n_served += 1
            if place == len(lines):
                lines.append(line)
            elif place < count:
                lines[place] = line
    events = (decode(line).event for line in lines)
    return [event for event in events if isinstance(event, Served)]


def evidence_of(
    root: Path, user_ids: Collection[str], progress: Progress, *, types: Collection[str], with_actions: bool
) -> Evidence:
    """Read the events that lists of some users may rest on, and all changes of items.

    Args:
        root: The archive.
        user_ids: The users, as in telemetry.
        progress: Called with the lines read.
        types: The types of feedback that are live: others are not among a user's last events.
        with_actions: Whether a list rests on actions of other users on new items, which takes another scan.
    """
    evidence = Evidence({user_id: [] for user_id in user_ids})
    with open_files(root) as files:
        for line in _lines(files, progress):
            if line.startswith(SERVED_STARTS):
                continue
            try:
                record = decode(line)
            except BadEventError:
                # The audit reports damaged lines.
                continue
            if isinstance(record.event, ItemChange):
                evidence.items.append(record)
            elif isinstance(record.event, Feedback) and record.event.user_id in evidence.live:
                event = live_event(record, types)
                if event is not None:
                    evidence.live[event.user_id].append(event)
        if with_actions:
            items = {record.event.item_id for record in evidence.items if isinstance(record.event, ItemChange)}
            evidence.actions.extend(_actions(files, items, progress))
    return evidence


def _actions(files: list[OpenFile], item_ids: Collection[str], progress: Progress) -> Iterator[LiveEvent]:
    for line in _lines(files, progress):
        if not line.startswith(SERVED_STARTS):
            try:
                record = decode(line)
            except BadEventError:
                continue
            if isinstance(record.event, Feedback) and record.event.item_id in item_ids:
                event = live_event(record, LIVE_TYPES)
                if event is not None:
                    yield event


def _lists(root: Path, folder: str | None, recommendation_id: str, progress: Progress) -> Iterator[Served]:
    needle = recommendation_id.encode()
    with open_files(root, folder) as files:
        for line in _lines(files, progress):
            if needle in line and line.startswith(SERVED_STARTS):
                event = decode(line).event
                if isinstance(event, Served) and event.recommendation_id == recommendation_id:
                    yield event


def _folders_of(recommendation_id: str) -> list[str]:
    """Return the folders of the date of an id (RFC 9562, version 7) and of the dates beside it."""
    try:
        id_ = UUID(recommendation_id)
        if id_.version != _UUID_VERSION_WITH_TIME:
            return []
        moment = datetime.fromtimestamp((id_.int >> _UUID_TIME_SHIFT) / 1000, UTC)
        return [f"date={moment + timedelta(days=days):%Y-%m-%d}" for days in (0, 1, -1)]
    except (ValueError, OverflowError):
        return []


def _lines(files: list[OpenFile], progress: Progress) -> Iterator[bytes]:
    events = [file for file in files if not file.is_dead_letters]
    total = sum(file.lines for file in events)
    done = 0
    for file in events:
        for line in file.read():
            done += 1
            if done % _REPORT_EVERY_LINES == 0:
                progress(done, total)
            yield line
    progress(total, total)
