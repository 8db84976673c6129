"""Reads from the archive what a state snapshot does not include yet.

Invariant: every archived event beyond the snapshot's marks is read, whatever became of the files meanwhile: an event at
or below the mark of its producer is included, also when it is in a compacted or rewritten file. The names and lengths
of files only spare reading again what is included.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from telemetry.archive.archive_files import DATE_PREFIX, date_of
from telemetry.archive.archive_reader import committed_files
from telemetry.archive.archive_snapshot import OpenFile, open_files
from telemetry.batch import Position
from telemetry.errors import BadEventError
from telemetry.events import SERVED_STARTS, Record, decode
from telemetry.live.state_manifest import StateManifest

_PART: Final = re.compile(r"part-(\d+)-(\d+)")
_OF_NO_USE: Final = (*SERVED_STARTS, b'{"schema":1,"class":"system",')
_ITEM_START: Final = b'{"schema":1,"class":"item",'
_START: Final = Position(0, 0)


def read_tail(root: Path, included: StateManifest | None, since_day: str) -> Iterator[Record]:
    """Read the feedback and the changes of items that a snapshot does not include; all without a snapshot.

    Files are opened date by date, each date as of one moment.

    Args:
        since_day: Of earlier UTC dates only changes of items are read.

    Raises:
        ArchiveError: The archive cannot be read.
    """
    marks: Mapping[str, Position] = {} if included is None else included.marks
    paths = [file.path.relative_to(root).as_posix() for file in committed_files(root)]
    days = {date_of(path) for path in paths if included is None or not is_included(path, included)}
    for day in sorted(days):
        starts = (b"",) if day >= since_day else (_ITEM_START,)
        with open_files(root, f"{DATE_PREFIX}{day}") as files:
            for file in files:
                if included is None or not is_included(file.path, included):
                    from_bytes = 0 if included is None else included.lengths.get(file.path, 0)
                    yield from _records(file, from_bytes, starts, marks)


def is_included(path: str, included: StateManifest) -> bool:
    """Whether a snapshot includes all of a file of the archive, by its path; False if that is not certain."""
    part, growing = _PART.search(path), _PART.search(included.part)
    if part is None or growing is None:
        return path in included.compacted
    return tuple(map(int, part.groups())) < tuple(map(int, growing.groups()))


def is_compacted(path: str) -> bool:
    """Whether a file of the archive has no part's name, so that a manifest must name it to include it."""
    return _PART.search(path) is None


def _records(
    file: OpenFile, from_bytes: int, starts: tuple[bytes, ...], marks: Mapping[str, Position]
) -> Iterator[Record]:
    for line in file.read(from_bytes):
        # Nine of ten lines of an archive are served lists, and decoding them would take most of the time.
        if line.startswith(_OF_NO_USE) or not line.startswith(starts):
            continue
        try:
            record = decode(line)
        except BadEventError:
            # A later version may have written classes that this one does not know.
            continue
        if Position(record.epoch, record.seq) > marks.get(record.producer, _START):
            yield record
