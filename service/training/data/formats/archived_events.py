"""Reads interactions from the archive: the feedback of this installation's users.

`EVENT_VALUES` gives the rating of each type of event; impressions and served lists count for nothing. Of a pair of user
and item one event stays: a rating before a purchase or dismissal, that before a click or view, and among equals the
latest. The time of an event is the client's, unless it is marked as skewed, and never later than its receipt.

Invariant: only committed lines are read, all as of one moment, and the fingerprint is of that moment.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from service.errors import DataError, NothingArchived
from service.models.history.event_values import EVENT_RANKS, EVENT_VALUES
from service.models.history.user_history import EVENT_TYPES
from service.training.data.field_values import number_text, parse_number, parse_time, printable
from service.training.data.row_collector import RowBatch, RowCollector, SourceRows
from service.training.interactions import Progress
from telemetry.archive.archive_snapshot import ArchiveSnapshot, OpenFile, open_snapshot
from telemetry.errors import ArchiveError, BadEventError
from telemetry.events import SERVED_STARTS, Feedback, decode

NAME: Final = "archive"
_BATCH_EVENTS: Final = 1 << 16
_PROGRESS_LINES: Final = 10_000


def with_default_path(spec: str, default: Path) -> str:
    """Return `archive:DEFAULT` for `archive` alone, and other specifications as they are."""
    return f"{NAME}:{default}" if spec == NAME else spec


def parse_spec(spec: str) -> Path | None:
    """Return the archive that a specification names; None if it is a path.

    Raises:
        DataError: It begins with `archive:` and names no path.
    """
    name, _, path = spec.partition(":")
    if name != NAME:
        return None
    if not path.strip():
        raise DataError(f"{spec!r} names no archive: give {NAME}:PATH.")
    return Path(path).expanduser()


def fingerprint(root: Path) -> str:
    """Return "sha256:…" over the numbers of archived and erased events of each producer.

    It changes with any event that is archived, erased or removed by retention, and not with compaction.

    Raises:
        DataError: There is no archive in the directory, or it cannot be read.
    """
    try:
        with open_snapshot(root) as snapshot:
            return _fingerprint(root, snapshot)
    except ArchiveError as error:
        raise DataError(str(error)) from error


def read_archive(
    root: Path, progress: Progress, *, batch_events: int = _BATCH_EVENTS, progress_lines: int = _PROGRESS_LINES
) -> tuple[SourceRows, str, tuple[str, ...]]:
    """Read the interactions of an archive; report the lines read as progress.

    Returns:
        The rows, with all events of a pair; the fingerprint; and one sentence each on the events that count and those
        that do not.

    Raises:
        DataError: There is no archive, it cannot be read, or it holds no event that counts.
    """
    collector, counts = RowCollector(), Counter[str]()
    collector.begin_file(NAME, has_ratings=True, has_times=True)
    try:
        with open_snapshot(root) as snapshot:
            identity = _fingerprint(root, snapshot)
            if snapshot.gone:
                raise DataError(f"{root / snapshot.gone[0]} is in the archive's catalogue, but not on the disk.")
            files = [file for file in snapshot.files if not file.is_dead_letters]
            n_lines, n_read = sum(file.lines for file in files), 0
            for file in files:
                for n_of_file in _read_file(file, collector, counts, batch_events, progress_lines):
                    progress("read", n_read + n_of_file, n_lines)
                n_read += file.lines
    except ArchiveError as error:
        raise DataError(str(error)) from error
    if not any(counts[type_] for type_ in EVENT_VALUES):
        *most, last = EVENT_VALUES
        raise NothingArchived(f"The archive in {root} holds no {', '.join(most)} or {last} event to learn from yet.")
    return collector.rows(), identity, _notes(counts)


def _fingerprint(root: Path, snapshot: ArchiveSnapshot) -> str:
    if not snapshot.progress:
        raise NothingArchived(f"There is no archive in {root}, or nothing in it yet.")
    retired = Counter[tuple[str, int]]()
    for run in snapshot.retired:
        retired[run.producer, run.epoch] += run.size
    digest = hashlib.sha256(b"archive 1")
    for key, account in sorted(snapshot.progress.items()):
        digest.update(f"\n{key[0]} {key[1]} {account.archived - retired[key]} {account.erased}".encode())
    return f"sha256:{digest.hexdigest()}"


def _read_file(
    file: OpenFile, collector: RowCollector, counts: Counter[str], batch_events: int, progress_lines: int
) -> Iterator[int]:
    """Read one file's events; yield how many lines are read, every `progress_lines` lines and at the end."""
    events: list[tuple[int, Feedback]] = []
    bad: dict[int, str] = {}
    for number, line in enumerate(file.read(), 1):
        if number % progress_lines == 0:
            yield number
        # Nine of ten lines of an archive are served lists, and decoding them would take most of the time.
        if line.startswith(SERVED_STARTS):
            continue
        try:
            event = decode(line).event
        except BadEventError as error:
            bad[number] = str(error)
            continue
        if not isinstance(event, Feedback):
            continue
        counts[event.type] += 1
        if event.type not in EVENT_VALUES:
            continue
        events.append((number, event))
        if len(events) == batch_events:
            bad |= _collect(events, collector)
            events.clear()
    bad |= _collect(events, collector)
    collector.reject(printable(file.path), bad)
    yield file.lines


def _collect(events: list[tuple[int, Feedback]], collector: RowCollector) -> dict[int, str]:
    """Add the valid events; return the reason of each other one by line number."""
    good: list[tuple[str, str, float, int, int, int]] = []
    bad: dict[int, str] = {}
    for number, event in events:
        value = EVENT_VALUES[event.type]
        if value is None:
            value = parse_number(number_text(event.value))
        time_s = _time_s(event)
        if value is None or time_s is None:
            field = f"the rating {event.value!r}" if value is None else f"received_at {event.received_at!r}"
            bad[number] = f"{field} is out of bounds"
        else:
            type_ = EVENT_TYPES.index(event.type)
            good.append((event.user_id, event.item_id, value, time_s, EVENT_RANKS[event.type], type_))
    users, items, values, times_s, ranks, types = zip(*good, strict=True) if good else ((), (), (), (), (), ())
    batch = RowBatch(
        users=np.fromiter((collector.users.setdefault(id_, len(collector.users)) for id_ in users), np.int32),
        items=np.fromiter((collector.items.setdefault(id_, len(collector.items)) for id_ in items), np.int32),
        ratings=np.array(values, dtype=np.float32),
        timestamps=np.array(times_s, dtype=np.int64),
        ranks=np.array(ranks, dtype=np.int8),
        types=np.array(types, dtype=np.uint8),
    )
    collector.add(batch, batch.good())
    return bad


def _time_s(event: Feedback) -> int | None:
    received_s = parse_time(event.received_at)
    client_s = None if event.client_time is None or "clock_skew" in event.marks else parse_time(event.client_time)
    return received_s if received_s is None or client_s is None else min(client_s, received_s)


def _notes(counts: Counter[str]) -> tuple[str, ...]:
    """Return how many events of each type count, and how many were left out."""
    used = ", ".join(f"{counts[type_]:,} {_plural(type_, counts[type_])}" for type_ in EVENT_VALUES if counts[type_])
    left_out = [
        f"{n:,} {_plural(type_, n)} of the archive {'was' if n == 1 else 'were'} left out: the type has no rating."
        for type_, n in sorted(counts.items())
        if type_ not in EVENT_VALUES
    ]
    return (f"The archive holds {used}.", *left_out)


def _plural(type_: str, n: int) -> str:
    noun = "dismissal" if type_ == "dismiss" else printable(type_)
    return noun if n == 1 else f"{noun}s"
