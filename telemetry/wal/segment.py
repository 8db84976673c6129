"""A segment: one file of the write-ahead log, `<epoch>-<first_seq>.wal`.

Invariant: a header that says whose events follow and the number of the first, then records with dense numbers, then the
zeros of the space reserved for more. The header is synced before the first record counts. Nothing in a segment is
ever changed: it is written from front to back and removed whole.
"""

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from telemetry.batch import Position
from telemetry.errors import BadEventError
from telemetry.events import position_of
from telemetry.wal.disk import Disk
from telemetry.wal.frame import Record, at, scan

SUFFIX: Final = ".wal"
# Magic, version, producer, epoch, first number, checksum.
_HEAD: Final = struct.Struct("<8sI64sQQI")
_MAGIC: Final = b"RCLWAL01"
_VERSION: Final = 1
_CHECK_BYTES: Final = 4
DATA_START: Final = 128
INDEX_EVERY_BYTES: Final = 64 * 1024


class SegmentHeader(NamedTuple):
    """Whose events a segment holds, and from which number on."""

    producer: str
    epoch: int
    first_seq: int


class Segment:
    """A segment as the journal knows it.

    Attributes:
        path: The file.
        header: What it holds.
        last_seq: The last number in it; `first_seq - 1` for an empty one.
        end: Where its records end, in bytes.
        opened_s: When it was begun, by the clock the journal was given; 0 for one of an earlier process.
        indexed: Whether it is known where its records begin.
    """

    def __init__(self, path: Path, header: SegmentHeader, last_seq: int, end: int, opened_s: float = 0.0) -> None:
        self.path = path
        self.header = header
        self.last_seq = last_seq
        self.end = end
        self.opened_s = opened_s
        self.indexed = end == DATA_START
        # Where to begin reading for a number.
        self._index_seqs = [header.first_seq]
        self._index_starts = [DATA_START]

    def __repr__(self) -> str:
        return f"<Segment {self.header.epoch}-{self.header.first_seq}..{self.last_seq} {self.end} B>"

    @property
    def first(self) -> Position:
        """The place of its first event."""
        return Position(self.header.epoch, self.header.first_seq)

    @property
    def last(self) -> Position:
        """The place of its last event."""
        return Position(self.header.epoch, self.last_seq)

    def grew(self, seq: int, start: int) -> None:
        """Note where a record begins; most notes are not needed and are not kept.

        Args:
            seq: Its number.
            start: Where it begins.
        """
        if seq > self._index_seqs[-1] and start >= self._index_starts[-1] + INDEX_EVERY_BYTES:
            self._index_seqs.append(seq)
            self._index_starts.append(start)

    def start_for(self, seq: int) -> int:
        """Return where to begin reading for a number."""
        return self._index_starts[max(bisect_right(self._index_seqs, seq) - 1, 0)]


def file_name(header: SegmentHeader) -> str:
    """Name the file of a segment; names sort as places do."""
    return f"{header.epoch:010d}-{header.first_seq:012d}{SUFFIX}"


def encode_header(header: SegmentHeader) -> bytes:
    """Write a header, padded to where the records begin."""
    checked = _HEAD.pack(_MAGIC, _VERSION, header.producer.encode(), header.epoch, header.first_seq, 0)[:-_CHECK_BYTES]
    return (checked + zlib.crc32(checked).to_bytes(_CHECK_BYTES, "little")).ljust(DATA_START, b"\0")


def decode_header(data: bytes) -> SegmentHeader | None:
    """Read a header.

    Args:
        data: The start of a file.

    Returns:
        The header, or None if there is no undamaged one of this version.
    """
    if len(data) < _HEAD.size:
        return None
    magic, version, producer, epoch, first_seq, checksum = _HEAD.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION) or zlib.crc32(data[: _HEAD.size - _CHECK_BYTES]) != checksum:
        return None
    return SegmentHeader(producer.rstrip(b"\0").decode(), epoch, first_seq)


def of_newer_version(data: bytes) -> bool:
    """Tell whether a file is a segment that only a newer program can read.

    Args:
        data: The start of the file.

    Returns:
        True for one with our magic and another version.
    """
    if len(data) < _HEAD.size:
        return False
    magic, version, *_ = _HEAD.unpack_from(data)
    return (
        magic == _MAGIC
        and version > _VERSION
        and zlib.crc32(data[: _HEAD.size - _CHECK_BYTES])
        == int.from_bytes(data[_HEAD.size - _CHECK_BYTES : _HEAD.size], "little")
    )


class Found(NamedTuple):
    """What a whole segment holds: undamaged lines by number, and where the last record ends."""

    header: SegmentHeader
    lines: dict[int, bytes]
    end: int


def read_whole(disk: Disk, path: Path) -> Found | None:
    """Read everything that a segment holds, whatever was done to it.

    Args:
        disk: The file system.
        path: The file; its name counts only if its header is damaged.

    Returns:
        What was found, in the order of the numbers; None if there is not one undamaged record.

    Raises:
        OSError: The file cannot be read.
    """
    data = disk.read(path)
    header = decode_header(data)
    lines: dict[int, bytes] = {}
    end = DATA_START
    for record in scan(data, DATA_START, len(data)):
        if header is None:
            header = _guess_header(path, data[record.line_start : record.end])
        # What was copied here from elsewhere does not count.
        if header is not None and record.seq >= header.first_seq and _belongs(data, record, header):
            lines[record.seq] = data[record.line_start : record.end]
            end = record.end
    return Found(header, dict(sorted(lines.items())), end) if header is not None and lines else None


def _guess_header(path: Path, line: bytes) -> SegmentHeader | None:
    """Have the name and an event say what a damaged header said; None if they do not agree."""
    epoch, _, first_seq = path.name.removesuffix(SUFFIX).partition("-")
    with suppress(ValueError, BadEventError):
        header = SegmentHeader(position_of(line)[0], int(epoch), int(first_seq))
        if position_of(line)[1] == header.epoch:
            return header
    return None


def _belongs(data: bytes, record: Record, header: SegmentHeader) -> bool:
    """Tell whether a line says that it has its place; a text in it cannot say so, for its quotes are escaped."""
    place = f'"producer":"{header.producer}","epoch":{header.epoch},"seq":{record.seq},'
    return data.find(place.encode(), record.line_start, record.end) >= 0


def index(disk: Disk, segment: Segment) -> None:
    """Note where records of a segment that an earlier process wrote begin, unless that is known.

    Args:
        disk: The file system.
        segment: The segment.

    Raises:
        OSError: The file cannot be read.
    """
    if segment.indexed:
        return
    data = disk.read(segment.path, 0, segment.end)
    for record in scan(data, DATA_START, len(data)):
        segment.grew(record.seq, record.start)
    segment.indexed = True


def read_run(disk: Disk, segment: Segment, seq: int, max_lines: int, max_bytes: int) -> tuple[int, list[bytes]]:
    """Read a dense run of lines.

    Args:
        disk: The file system.
        segment: Where from.
        seq: The first number wanted.
        max_lines: The most lines.
        max_bytes: The most bytes of lines; the first comes even if it is longer.

    Returns:
        The number of the first line and the lines. Damage may make it begin later than wanted, or end early; no lines
        if nothing from `seq` on can be read.

    Raises:
        OSError: The file cannot be read.
    """
    index(disk, segment)
    start = segment.start_for(seq)
    rest_bytes = segment.end - start
    for size_bytes in (min(rest_bytes, 2 * INDEX_EVERY_BYTES + max_bytes), rest_bytes):
        data = disk.read(segment.path, start, size_bytes)
        lines = _cut(_lines_from(data, segment.header, seq), max_lines, max_bytes)
        if lines:
            return seq, lines
    found = read_whole(disk, segment.path)
    held = [] if found is None else [number for number in found.lines if seq <= number <= segment.last_seq]
    if found is None or not held:
        return seq, []
    rest = (found.lines.get(number) for number in range(held[0], segment.last_seq + 1))
    return held[0], _cut(rest, max_lines, max_bytes)


def _lines_from(data: bytes, header: SegmentHeader, seq: int) -> Iterator[bytes | None]:
    place = 0
    while (record := at(data, place, len(data))) is not None and record.seq <= seq:
        place = record.end
        if record.seq == seq and _belongs(data, record, header):
            seq += 1
            yield data[record.line_start : record.end]


def _cut(lines: Iterable[bytes | None], max_lines: int, max_bytes: int) -> list[bytes]:
    """Take lines up to the first missing one or a limit."""
    taken: list[bytes] = []
    size_bytes = 0
    for line in lines:
        if line is None or len(taken) == max_lines:
            break
        size_bytes += len(line)
        if size_bytes > max_bytes and taken:
            break
        taken.append(line)
    return taken
