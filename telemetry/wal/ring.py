"""The ring buffer: frames that no segment holds yet, in a memory-mapped file.

A frame survives `kill -9` once `append` returns, after about two microseconds and without a system call, because the
pages belong to the kernel. It does not survive a power cut; segments do.

Invariants:

- The file's space is reserved when it is opened, so an append cannot fail because the disk is full.
- The line of a frame is written before its header, so a partly written frame does not count.
- `release` frees only what a segment has synced, and zeroes it. Two cells take turns to hold the epoch and its last
  durable number; the newer undamaged one counts.
- Frames are found by a scan, at any offset, so damage costs no more than the bytes it hit. Each line holds its epoch:
  after a power cut some pages may be older than others.

    page 0:  magic, capacity | cell A | cell B | drops           data: frames, none across the end
"""

import struct
import zlib
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple

from telemetry.batch import Position
from telemetry.errors import BadEventError, SpoolError
from telemetry.events import position_of
from telemetry.wal.disk import Buffer, Disk
from telemetry.wal.drops import DropCount, read_drops
from telemetry.wal.frame import HEADER_BYTES, scan

FILE_NAME: Final = "ring"

_PAGE: Final = 4096
_HEAD: Final = struct.Struct("<8sQI")
_MAGIC: Final = b"RCLRING1"
_CELL: Final = struct.Struct("<QQQ")
_CHECK: Final = struct.Struct("<I")
_CELLS: Final = (64, 128)
_LEAST_BYTES: Final = 64 * 1024


class _Cell(NamedTuple):
    turn: int
    epoch: int
    durable_seq: int


class Ring:
    """An open ring buffer. Read `left` first, then `reset` it, then append.

    Attributes:
        capacity: Room for frames, in bytes.
        epoch: The epoch of its frames.
        durable_seq: The last number of that epoch that a segment holds, as the ring has it.
        left: The frames of that epoch that the previous process left, by number; numbers jump where there is damage.
        head: The offset behind the last frame. Offsets only grow; modulo `capacity` they are bytes of the data.
        tail: The offset of the first frame. `head - tail` is the space in use.
    """

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.capacity = len(buffer) - _PAGE
        cell = _newest_cell(buffer) or _Cell(0, 0, 0)
        if not _is_ring(buffer):
            checked = _HEAD.pack(_MAGIC, self.capacity, 0)[: -_CHECK.size]
            buffer[: _HEAD.size] = checked + _CHECK.pack(zlib.crc32(checked))
        found = _frames_by_epoch(bytes(buffer))
        self._turn = cell.turn
        # The newest cell may be the damaged one; the lines hold their epoch too.
        self.epoch = max([cell.epoch, *found])
        self.durable_seq = cell.durable_seq if cell.epoch == self.epoch else 0
        self.left = found.get(self.epoch, {})
        self.tail = self.head = 0

    def __repr__(self) -> str:
        return f"<Ring epoch={self.epoch} {self.head - self.tail} of {self.capacity} B>"

    @classmethod
    def open(cls, disk: Disk, directory: Path, size_bytes: int) -> "Ring":
        """Open the ring in a slot's directory, or create it.

        A new one has `size_bytes`, or less where the disk has little room; an existing one keeps its size.

        Raises:
            OSError: The disk has no room for the smallest ring.
        """
        path = directory / FILE_NAME
        if FILE_NAME in disk.names(directory):
            data = disk.read(path)
            # The larger of both: a truncated file gets its length back, and a longer one is not truncated.
            existing = max(_size_of(data[: _HEAD.size]) or 0, -(-len(data) // _PAGE) * _PAGE)
            if existing >= _LEAST_BYTES:
                return cls(disk.map(path, existing))
        # At most an eighth of the free room: other replicas need a ring too.
        size_bytes = max(min(size_bytes, disk.free_bytes(directory) // 8), _LEAST_BYTES)
        return cls(disk.map(path, size_bytes // _PAGE * _PAGE))

    def append(self, frame: bytes) -> bool:
        """Append the frame of the next number; return False if there is no room for it."""
        size_bytes = len(frame)
        at_byte = self.head % self.capacity
        skip = 0 if at_byte + size_bytes <= self.capacity else self.capacity - at_byte
        if self.head + skip + size_bytes - self.tail > self.capacity:
            return False
        buffer = self.buffer
        start = _PAGE + (0 if skip else at_byte)
        buffer[start + HEADER_BYTES : start + size_bytes] = frame[HEADER_BYTES:]
        buffer[start : start + HEADER_BYTES] = frame[:HEADER_BYTES]
        self.head += skip + size_bytes
        return True

    def release(self, offset: int, durable_seq: int) -> None:
        """Free the frames that a segment has synced.

        Args:
            offset: `head` as it was behind the last of them.
            durable_seq: The number of the last of them.
        """
        before, self.tail = self.tail, offset
        self.durable_seq = durable_seq
        self._write_cell()
        # Zeroed, so that no user's events stay in the file after they are erased elsewhere.
        first, last = before % self.capacity, offset % self.capacity
        if offset - before >= self.capacity or last < first:
            self._zero(first, self.capacity)
            self._zero(0, last)
        else:
            self._zero(first, last)

    def reset(self, epoch: int, durable_seq: int = 0) -> None:
        """Begin an epoch with an empty ring; a segment holds its numbers up to `durable_seq`."""
        self.epoch, self.durable_seq = epoch, durable_seq
        self.tail = self.head = 0
        self.left = {}
        self._write_cell()
        self._zero(0, self.capacity)

    def close(self) -> None:
        """Unmap the file."""
        if not isinstance(self.buffer, bytearray):
            self.buffer.close()

    def _write_cell(self) -> None:
        self._turn += 1
        checked = _CELL.pack(self._turn, self.epoch, self.durable_seq)
        start = _CELLS[self._turn % 2]
        self.buffer[start : start + len(checked) + _CHECK.size] = checked + _CHECK.pack(zlib.crc32(checked))

    def _zero(self, first: int, last: int) -> None:
        self.buffer[_PAGE + first : _PAGE + last] = bytes(last - first)


class RingContents(NamedTuple):
    """The contents of a ring: its last durable position, its frames up to the first missing one, and its drops."""

    durable: Position
    frames: list[bytes]
    drops: dict[int, DropCount]


def read_ring(disk: Disk, directory: Path) -> RingContents:
    """Read a slot's ring without changing it, also while its holder writes.

    Returns:
        Its contents; all empty for a slot without a ring.

    Raises:
        SpoolError: The file cannot be read.
    """
    try:
        data = bytearray(disk.read(directory / FILE_NAME)) if FILE_NAME in disk.names(directory) else bytearray()
    except OSError as error:
        raise SpoolError(f"The ring in {directory} cannot be read: {error.strerror}.") from None
    if len(data) <= _PAGE or not _is_ring(data) or _newest_cell(data) is None:
        return RingContents(Position(0, 0), [], {})
    ring = Ring(data)
    # The holder may append during the read: frames behind a missing one were appended after the read passed it.
    dense = takewhile(lambda one: one[0] == one[1][0], enumerate(ring.left.items(), min(ring.left, default=0)))
    return RingContents(
        Position(ring.epoch, ring.durable_seq), [frame for _, (_, frame) in dense], read_drops(ring.buffer)
    )


def _frames_by_epoch(data: bytes) -> dict[int, dict[int, bytes]]:
    """Return every undamaged frame, by epoch and number, in order."""
    found: dict[int, dict[int, bytes]] = {}
    for frame in scan(data, 0, len(data)):
        try:
            epoch = position_of(data[frame.line_start : frame.end]).epoch
        except BadEventError:
            continue
        found.setdefault(epoch, {})[frame.seq] = data[frame.start : frame.end]
    return {epoch: dict(sorted(frames.items())) for epoch, frames in found.items()}


def _is_ring(buffer: Buffer) -> bool:
    return _size_of(bytes(buffer[: _HEAD.size])) == len(buffer)


def _size_of(head: bytes) -> int | None:
    """Return the size of the ring file that begins with these bytes, or None if no ring begins so."""
    if len(head) != _HEAD.size:
        return None
    magic, capacity, checksum = _HEAD.unpack(head)
    if magic != _MAGIC or zlib.crc32(head[: -_CHECK.size]) != checksum:
        return None
    return int(capacity) + _PAGE


def _newest_cell(buffer: Buffer) -> _Cell | None:
    cells = []
    for start in _CELLS:
        checked = bytes(buffer[start : start + _CELL.size])
        (checksum,) = _CHECK.unpack_from(buffer, start + _CELL.size)
        if zlib.crc32(checked) == checksum:
            cells.append(_Cell(*_CELL.unpack(checked)))
    return max(cells, default=None)
