"""Reads interactions from the archive: the feedback of this installation's users.

`EVENT_VALUES` gives the rating of each type of event; impressions and served lists count for nothing. Of a pair of user
and item one event stays: a rating before a purchase or dismissal, that before a click or view, and among equals the
latest. The time of an event is the client's, unless it is marked as skewed, and never later than its receipt.

Invariant: only committed lines are read, all as of one moment, and the fingerprint is of that moment.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.errors import DataError
from service.training.data.field_values import parse_number, parse_time, printable
from service.training.data.formats.typed_values import number_text
from service.training.interactions import Progress
from telemetry.archive.archive_snapshot import ArchiveSnapshot, OpenFile, open_snapshot
from telemetry.errors import ArchiveError, BadEventError
from telemetry.events import SERVED_STARTS, Feedback, decode

if TYPE_CHECKING:
    from service.training.data.rows import RowCollector, SourceRows

NAME: Final = "archive"
# What an event is worth; a rating is worth what it says.
EVENT_VALUES: Final[Mapping[str, float | None]] = {
    "rating": None,
    "purchase": 5.0,
    "click": 4.0,
    "view": 3.0,
    "dismiss": 1.0,
}
# What somebody said outlives what they did on purpose, and that what they looked at.
RATING_RANK: Final = 2
_RANKS: Final[Mapping[str, int]] = {"rating": RATING_RANK, "purchase": 1, "dismiss": 1, "click": 0, "view": 0}
_BATCH_EVENTS: Final = 1 << 16
_REPORTED_LINES: Final = 10_000


def with_default_path(spec: str, default: Path) -> str:
    """Return a specification that says which archive it means; others as they are.

    Args:
        spec: What a person wrote.
        default: What `archive` alone stands for.
    """
    return f"{NAME}:{default}" if spec == NAME else spec


def parse_spec(spec: str) -> Path | None:
    """Return the archive that a specification names; None if it is a path.

    Raises:
        DataError: It names none.
    """
    name, _, path = spec.partition(":")
    if name != NAME:
        return None
    if not path.strip():
        raise DataError(f"{spec!r} names no archive: give {NAME}:PATH")
    return Path(path).expanduser()


def fingerprint(root: Path) -> str:
    """Return "sha256:…" over how many events of each producer are archived and how many were erased.

    Any event that is archived, erased or removed by retention changes it; compaction does not.

    Args:
        root: The archive's directory.

    Raises:
        DataError: There is no archive, or it cannot be read.
    """
    try:
        with open_snapshot(root) as taken:
            return _fingerprint(root, taken)
    except ArchiveError as error:
        raise DataError(str(error)) from error


def read_archive(root: Path, progress: Progress) -> "tuple[SourceRows, str, tuple[str, ...]]":
    """Read what users did.

    Args:
        root: The archive's directory.
        progress: Told of the lines read.

    Returns:
        The rows, with all events of a pair; the fingerprint; and what was counted and what was not, one sentence each.

    Raises:
        DataError: There is no archive, it cannot be read, or nothing in it can be learnt from.
    """
    # Only here, because what asks for a fingerprint alone has no use for pyarrow.
    from service.training.data.rows import RowCollector

    collector, counts = RowCollector(), Counter[str]()
    collector.begin_file(NAME, has_ratings=True, has_times=True)
    try:
        with open_snapshot(root) as taken:
            identity = _fingerprint(root, taken)
            if taken.gone:
                raise DataError(f"{root / taken.gone[0]} is in the archive's catalogue, but not on the disk")
            files = [file for file in taken.files if not file.is_dead_letters]
            n_lines, n_read = sum(file.lines for file in files), 0
            for file in files:
                for n_of_file in _read_file(file, collector, counts):
                    progress("read", n_read + n_of_file, n_lines)
                n_read += file.lines
    except ArchiveError as error:
        raise DataError(str(error)) from error
    if not any(counts[type_] for type_ in EVENT_VALUES):
        *most, last = EVENT_VALUES
        raise DataError(f"the archive in {root} holds no {', '.join(most)} or {last} event to learn from yet")
    return collector.rows(), identity, _notes(counts)


def _fingerprint(root: Path, taken: ArchiveSnapshot) -> str:
    if not taken.progress:
        raise DataError(f"there is no archive in {root}, or nothing in it yet")
    retired = Counter[tuple[str, int]]()
    for run in taken.retired:
        retired[run.producer, run.epoch] += run.size
    digest = hashlib.sha256(b"archive 1")
    for key, account in sorted(taken.progress.items()):
        digest.update(f"\n{key[0]} {key[1]} {account.archived - retired[key]} {account.erased}".encode())
    return f"sha256:{digest.hexdigest()}"


def _read_file(file: OpenFile, collector: "RowCollector", counts: Counter[str]) -> Iterator[int]:
    """Read one file's events; yields now and then how many lines are done."""
    events: list[tuple[int, Feedback]] = []
    bad: dict[int, str] = {}
    for number, line in enumerate(file.read(), 1):
        if number % _REPORTED_LINES == 0:
            yield number
        # Nine of ten lines of an archive are lists that were served, and reading them whole takes most of the time.
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
        if len(events) == _BATCH_EVENTS:
            bad |= _take(events, collector)
            events.clear()
    bad |= _take(events, collector)
    collector.reject(printable(file.path), bad)
    yield file.lines


def _take(events: list[tuple[int, Feedback]], collector: "RowCollector") -> dict[int, str]:
    """Take up events; return by line what is wrong with those that cannot be."""
    import numpy as np

    from service.training.data.rows import Batch

    good: list[tuple[str, str, float, int, int]] = []
    bad: dict[int, str] = {}
    for number, event in events:
        value = EVENT_VALUES[event.type]
        if value is None:
            value = parse_number(number_text(event.value))
        time_s = _time_s(event)
        if value is None or time_s is None:
            what = f"the rating {event.value!r}" if value is None else f"received_at {event.received_at!r}"
            bad[number] = f"{what} is out of all bounds"
        else:
            good.append((event.user_id, event.item_id, value, time_s, _RANKS[event.type]))
    users, items, values, times_s, ranks = zip(*good, strict=True) if good else ((), (), (), (), ())
    batch = Batch(
        users=np.fromiter((collector.users.setdefault(id_, len(collector.users)) for id_ in users), np.int32),
        items=np.fromiter((collector.items.setdefault(id_, len(collector.items)) for id_ in items), np.int32),
        ratings=np.array(values, dtype=np.float32),
        timestamps=np.array(times_s, dtype=np.int64),
        ranks=np.array(ranks, dtype=np.int8),
    )
    collector.add(batch, batch.good())
    return bad


def _time_s(event: Feedback) -> int | None:
    received_s = parse_time(event.received_at)
    client_s = None if event.client_time is None or "clock_skew" in event.marks else parse_time(event.client_time)
    return received_s if received_s is None or client_s is None else min(client_s, received_s)


def _notes(counts: Counter[str]) -> tuple[str, ...]:
    """Say how many events of each type there were, and which were left out."""
    used = ", ".join(f"{counts[type_]:,} {_plural(type_, counts[type_])}" for type_ in EVENT_VALUES if counts[type_])
    left = [
        f"{n:,} {_plural(type_, n)} of the archive {'was' if n == 1 else 'were'} left out: they say nothing of liking."
        for type_, n in sorted(counts.items())
        if type_ not in EVENT_VALUES
    ]
    return (f"The archive holds {used}.", *left)


def _plural(type_: str, n: int) -> str:
    noun = "dismissal" if type_ == "dismiss" else printable(type_)
    return noun if n == 1 else f"{noun}s"
