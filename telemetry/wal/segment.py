"""A segment: one file of the write-ahead log, `<epoch>-<first_seq>.wal`.

Invariant: a header with the producer, the epoch and the first number, then frames with dense numbers, then the zeros of
reserved space. The header is synced before the first frame counts. Nothing in a segment changes: it is written from
front to back and removed whole.
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
from telemetry.wal.frame import Frame, frame_at, scan

SUFFIX: Final = ".wal"
# Magic, version, producer, epoch, first number, checksum.
_HEAD: Final = struct.Struct("<8sI64sQQI")
_MAGIC: Final = b"RCLWAL01"
_VERSION: Final = 1
_CHECK_BYTES: Final = 4
DATA_START: Final = 128
INDEX_EVERY_BYTES: Final = 64 * 1024


class SegmentHeader(NamedTuple):
    """The producer and epoch of a segment's events, and the number of the first."""

    producer: str
    epoch: int
    first_seq: int


class Segment:
    """A segment and an index of its frames.

    Attributes:
        last_seq: The last number in it; `first_seq - 1` for an empty one.
        end: The offset behind its last frame.
        opened_s: The time it was begun, by the journal's clock; 0 for one of an earlier process.
    """

    def __init__(self, path: Path, header: SegmentHeader, last_seq: int, end: int, opened_s: float = 0.0) -> None:
        self.path = path
        self.header = header
        self.last_seq = last_seq
        self.end = end
        self.opened_s = opened_s
        self._is_indexed = end == DATA_START
        # Numbers and the offsets of their frames, at least INDEX_EVERY_BYTES apart.
        self._index_seqs = [header.first_seq]
        self._index_offsets = [DATA_START]

    def __repr__(self) -> str:
        return f"<Segment {self.header.epoch}-{self.header.first_seq}..{self.last_seq} {self.end} B>"

    @property
    def first(self) -> Position:
        """The position of its first event."""
        return Position(self.header.epoch, self.header.first_seq)

    @property
    def last(self) -> Position:
        """The position of its last event."""
        return Position(self.header.epoch, self.last_seq)

    @property
    def events(self) -> int:
        """How many numbers it covers."""
        return self.last_seq - self.header.first_seq + 1

    def note_frame(self, seq: int, offset: int) -> None:
        """Add a frame to the index, if it is far enough behind the last one there."""
        if seq > self._index_seqs[-1] and offset >= self._index_offsets[-1] + INDEX_EVERY_BYTES:
            self._index_seqs.append(seq)
            self._index_offsets.append(offset)

    def offset_before(self, seq: int, disk: Disk) -> int:
        """Return an indexed offset at or before the frame of a number; reads the file of an earlier process once.

        Raises:
            OSError: The file cannot be read.
        """
        if not self._is_indexed:
            data = disk.read(self.path, 0, self.end)
            for frame in scan(data, DATA_START, len(data)):
                self.note_frame(frame.seq, frame.start)
            self._is_indexed = True
        return self._index_offsets[max(bisect_right(self._index_seqs, seq) - 1, 0)]


def file_name(header: SegmentHeader) -> str:
    """Return the name of a segment's file; names sort as positions do."""
    return f"{header.epoch:010d}-{header.first_seq:012d}{SUFFIX}"


def encode_header(header: SegmentHeader) -> bytes:
    """Return a header, padded to the offset of the first frame."""
    checked = _HEAD.pack(_MAGIC, _VERSION, header.producer.encode(), header.epoch, header.first_seq, 0)[:-_CHECK_BYTES]
    return (checked + zlib.crc32(checked).to_bytes(_CHECK_BYTES, "little")).ljust(DATA_START, b"\0")


def decode_header(data: bytes) -> SegmentHeader | None:
    """Return the header at the start of a file, or None if there is no undamaged one of this version."""
    if _checked_version(data) != _VERSION:
        return None
    _, _, producer, epoch, first_seq, _ = _HEAD.unpack_from(data)
    return SegmentHeader(producer.rstrip(b"\0").decode(), epoch, first_seq)


def is_of_newer_version(data: bytes) -> bool:
    """Whether a file that starts with these bytes is a segment that only a newer program can read."""
    version = _checked_version(data)
    return version is not None and version > _VERSION


def _checked_version(data: bytes) -> int | None:
    if len(data) < _HEAD.size:
        return None
    magic, version, *_, checksum = _HEAD.unpack_from(data)
    if magic != _MAGIC or zlib.crc32(data[: _HEAD.size - _CHECK_BYTES]) != checksum:
        return None
    return int(version)


class SegmentContents(NamedTuple):
    """The undamaged lines of a segment by number, in order, and the offset behind its last frame."""

    header: SegmentHeader
    lines: dict[int, bytes]
    end: int


def read_segment(disk: Disk, path: Path) -> SegmentContents | None:
    """Read everything in a segment, however damaged; None if it holds no undamaged frame.

    Raises:
        OSError: The file cannot be read.
    """
    data = disk.read(path)
    header = decode_header(data)
    lines: dict[int, bytes] = {}
    end = DATA_START
    for frame in scan(data, DATA_START, len(data)):
        if header is None:
            header = _header_from_name(path, data[frame.line_start : frame.end])
        # Frames copied here from elsewhere do not count.
        if header is not None and frame.seq >= header.first_seq and _belongs(data, frame, header):
            lines[frame.seq] = data[frame.line_start : frame.end]
            end = frame.end
    return SegmentContents(header, dict(sorted(lines.items())), end) if header is not None and lines else None


def _header_from_name(path: Path, line: bytes) -> SegmentHeader | None:
    """Restore a damaged header from the file's name and an event; None if they do not agree."""
    epoch, _, first_seq = path.name.removesuffix(SUFFIX).partition("-")
    with suppress(ValueError, BadEventError):
        position = position_of(line)
        if position.epoch == int(epoch):
            return SegmentHeader(position.producer, position.epoch, int(first_seq))
    return None


def _belongs(data: bytes, frame: Frame, header: SegmentHeader) -> bool:
    """Whether a line holds its position; a text in it cannot imitate that, because its quotes are escaped."""
    position = f'"producer":"{header.producer}","epoch":{header.epoch},"seq":{frame.seq},'
    return data.find(position.encode(), frame.line_start, frame.end) >= 0


def read_run(disk: Disk, segment: Segment, seq: int, max_lines: int, max_bytes: int) -> tuple[int, list[bytes]]:
    """Read a dense run of lines from a number on; the first line comes even if it is longer than `max_bytes`.

    Returns:
        The number of the first line and the lines. Damage may make the run begin later, or end early; no lines if
        nothing from `seq` on is readable.

    Raises:
        OSError: The file cannot be read.
    """
    start = segment.offset_before(seq, disk)
    rest_bytes = segment.end - start
    for size_bytes in (min(rest_bytes, 2 * INDEX_EVERY_BYTES + max_bytes), rest_bytes):
        data = disk.read(segment.path, start, size_bytes)
        lines = _limit(_lines_from(data, segment.header, seq), max_lines, max_bytes)
        if lines:
            return seq, lines
    contents = read_segment(disk, segment.path)
    held = [] if contents is None else [number for number in contents.lines if seq <= number <= segment.last_seq]
    if contents is None or not held:
        return seq, []
    rest = (contents.lines.get(number) for number in range(held[0], segment.last_seq + 1))
    return held[0], _limit(rest, max_lines, max_bytes)


def _lines_from(data: bytes, header: SegmentHeader, seq: int) -> Iterator[bytes]:
    offset = 0
    while (frame := frame_at(data, offset, len(data))) is not None and frame.seq <= seq:
        offset = frame.end
        if frame.seq == seq and _belongs(data, frame, header):
            seq += 1
            yield data[frame.line_start : frame.end]


def _limit(lines: Iterable[bytes | None], max_lines: int, max_bytes: int) -> list[bytes]:
    """Return the lines up to the first missing one or a limit."""
    run: list[bytes] = []
    size_bytes = 0
    for line in lines:
        if line is None or len(run) == max_lines:
            break
        size_bytes += len(line)
        if size_bytes > max_bytes and run:
            break
        run.append(line)
    return run
