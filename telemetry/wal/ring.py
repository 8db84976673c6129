"""The ring: what the log's segments do not have yet, in memory that survives the process.

A record appended here survives `kill -9` from the moment `append` returns, for about two microseconds and without a
system call, because the bytes are the kernel's: the file is mapped. It does not survive a power cut; the segments do.

Invariants:

- The file's space is reserved when it is opened, so an append cannot fail for want of disk.
- The line of a record is written before its header, so half a record is none.
- `release` gives up only what a segment has synced, and zeroes it. Two cells take turns to say which epoch this is and
  how far it got; the newer whole one counts.
- What is left is found by its own marks, wherever it lies, so that damage costs no more than what it hit. A line says
  its epoch itself: after a power cut some pages may be older than others.
- Drops that no gap record tells of yet are counted here too, and survive as the records do.

    page 0:  magic, capacity | cell A | cell B | drops           data: records, none across the end
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
from telemetry.wal.frame import HEADER_BYTES, scan

FILE_NAME: Final = "ring"

_PAGE: Final = 4096
_HEAD: Final = struct.Struct("<8sQI")
_MAGIC: Final = b"RCLRING1"
_CELL: Final = struct.Struct("<QQQ")
_CHECK: Final = struct.Struct("<I")
_CELLS: Final = (64, 128)
_DROPS_AT: Final = 256
_DROP: Final = struct.Struct("<QQI")
_MOST_DROP_KINDS: Final = 16
_LEAST_BYTES: Final = 64 * 1024


class Dropped(NamedTuple):
    """Events of one kind of drop that no gap record tells of yet: how many, and after which number the first was."""

    events: int
    after_seq: int


class _Cell(NamedTuple):
    turn: int
    epoch: int
    durable_seq: int


class Ring:
    """An open ring; what was found in it is read first, then it is `reset`, then appended to.

    Args:
        buffer: The mapped file.

    Attributes:
        capacity: How many bytes of records it has room for.
        epoch: Whose records it holds.
        durable_seq: The last number of that epoch that was said to be in a segment.
        left: The framed records of that epoch that the last process left, by number; numbers jump where there was
            damage.
    """

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self.capacity = len(buffer) - _PAGE
        cell = _newest_cell(buffer) or _Cell(0, 0, 0)
        if not _is_ring(buffer):
            checked = _HEAD.pack(_MAGIC, self.capacity, 0)[: -_CHECK.size]
            buffer[: _HEAD.size] = checked + _CHECK.pack(zlib.crc32(checked))
        found = _records(bytes(buffer))
        self._turn = cell.turn
        # The newest cell may be the one that was damaged; the lines know better.
        self.epoch = max([cell.epoch, *found])
        self.durable_seq = cell.durable_seq if cell.epoch == self.epoch else 0
        self.left = found.get(self.epoch, {})
        # Places count up for ever; the place in the file is the remainder.
        self._tail = self._head = 0

    def __repr__(self) -> str:
        return f"<Ring epoch={self.epoch} {self.used_bytes} of {self.capacity} B>"

    @classmethod
    def open(cls, disk: Disk, directory: Path, size_bytes: int) -> "Ring":
        """Open a slot's ring, or make it.

        Args:
            disk: The file system.
            directory: The slot's directory.
            size_bytes: The size of a new one; made smaller where the disk has little room. One that is there keeps its
                size.

        Returns:
            The ring with what the last process left in it.

        Raises:
            OSError: The disk has no room for the smallest ring.
        """
        path = directory / FILE_NAME
        if FILE_NAME in disk.names(directory):
            data = disk.read(path)
            # Whichever is more: a file that was cut off gets its length back, and nothing in it is cut off.
            existing = max(_size_of(data[: _HEAD.size]) or 0, -(-len(data) // _PAGE) * _PAGE)
            if existing >= _LEAST_BYTES:
                return cls(disk.map(path, existing))
        # An eighth of the room at most, for other replicas want one too.
        size_bytes = max(min(size_bytes, disk.free_bytes(directory) // 8), _LEAST_BYTES)
        return cls(disk.map(path, size_bytes // _PAGE * _PAGE))

    @property
    def head(self) -> int:
        """The place behind the last record; for `release`."""
        return self._head

    @property
    def used_bytes(self) -> int:
        """What its records take."""
        return self._head - self._tail

    def append(self, record: bytes) -> bool:
        """Take a record.

        Args:
            record: A framed record with the next number.

        Returns:
            Whether there was room.
        """
        size_bytes = len(record)
        at_byte = self._head % self.capacity
        skip = 0 if at_byte + size_bytes <= self.capacity else self.capacity - at_byte
        if self._head + skip + size_bytes - self._tail > self.capacity:
            return False
        buffer = self._buffer
        start = _PAGE + (0 if skip else at_byte)
        buffer[start + HEADER_BYTES : start + size_bytes] = record[HEADER_BYTES:]
        buffer[start : start + HEADER_BYTES] = record[:HEADER_BYTES]
        self._head += skip + size_bytes
        return True

    def release(self, place: int, durable_seq: int) -> None:
        """Forget records that a segment has synced.

        Args:
            place: `head` as it was behind the last of them.
            durable_seq: The number of the last of them.
        """
        before, self._tail = self._tail, place
        self.durable_seq = durable_seq
        self._write_cell()
        # Zeroed, so that nobody's events lie about in here once they are forgotten elsewhere.
        first, last = before % self.capacity, place % self.capacity
        if place - before >= self.capacity or last < first:
            self._zero(first, self.capacity)
            self._zero(0, last)
        else:
            self._zero(first, last)

    def reset(self, epoch: int, durable_seq: int = 0) -> None:
        """Begin an epoch with an empty ring.

        Args:
            epoch: The new epoch.
            durable_seq: Its last number that a segment has.
        """
        self.epoch, self.durable_seq = epoch, durable_seq
        self._tail = self._head = 0
        self.left = {}
        self._write_cell()
        self._zero(0, self.capacity)

    def drops(self) -> dict[int, Dropped]:
        """Read the drops that no gap record tells of yet.

        Returns:
            By kind of drop, as `note_drop` was given.
        """
        found = {}
        for kind in range(_MOST_DROP_KINDS):
            start = _DROPS_AT + kind * _DROP.size
            events, after_seq, checksum = _DROP.unpack_from(self._buffer, start)
            if events and zlib.crc32(self._buffer[start : start + _DROP.size - _CHECK.size]) == checksum:
                found[kind] = Dropped(events, after_seq)
        return found

    def note_drop(self, kind: int, dropped: Dropped) -> None:
        """Remember how much of a kind was dropped; (0, 0) once a gap record tells of it.

        Args:
            kind: 0 to 15.
            dropped: The count so far.
        """
        start = _DROPS_AT + kind * _DROP.size
        checked = _DROP.pack(*dropped, 0)[: -_CHECK.size]
        self._buffer[start : start + _DROP.size] = checked + _CHECK.pack(zlib.crc32(checked))

    def close(self) -> None:
        """Unmap the file."""
        if not isinstance(self._buffer, bytearray):
            self._buffer.close()

    def _write_cell(self) -> None:
        self._turn += 1
        checked = _CELL.pack(self._turn, self.epoch, self.durable_seq)
        start = _CELLS[self._turn % 2]
        self._buffer[start : start + len(checked) + _CHECK.size] = checked + _CHECK.pack(zlib.crc32(checked))

    def _zero(self, first: int, last: int) -> None:
        self._buffer[_PAGE + first : _PAGE + last] = bytes(last - first)


def peek(disk: Disk, directory: Path) -> "tuple[Position, list[bytes], dict[int, Dropped]]":
    """Look into a slot's ring without opening it, also while its owner writes.

    Args:
        disk: The file system.
        directory: The slot's directory.

    Returns:
        (epoch, the last number said to be in a segment), the records up to the first that is not there, and the
        unrecorded drops; nothing of each for a slot without a ring.

    Raises:
        SpoolError: The file cannot be read.
    """
    try:
        data = bytearray(disk.read(directory / FILE_NAME)) if FILE_NAME in disk.names(directory) else bytearray()
    except OSError as error:
        raise SpoolError(f"the ring in {directory} cannot be read: {error.strerror}") from None
    if len(data) <= _PAGE or not _is_ring(data) or _newest_cell(data) is None:
        return Position(0, 0), [], {}
    ring = Ring(data)
    # Its owner may have appended while we read: what comes behind a break was not there when we passed the break.
    dense = takewhile(lambda one: one[0] == one[1][0], enumerate(ring.left.items(), min(ring.left, default=0)))
    return Position(ring.epoch, ring.durable_seq), [record for _, (_, record) in dense], ring.drops()


def _records(data: bytes) -> dict[int, dict[int, bytes]]:
    """Find every undamaged record: by epoch and number, in order."""
    found: dict[int, dict[int, bytes]] = {}
    for record in scan(data, 0, len(data)):
        try:
            _, epoch, _ = position_of(data[record.line_start : record.end])
        except BadEventError:
            continue
        found.setdefault(epoch, {})[record.seq] = data[record.start : record.end]
    return {epoch: dict(sorted(records.items())) for epoch, records in found.items()}


def _is_ring(buffer: Buffer) -> bool:
    return _size_of(bytes(buffer[: _HEAD.size])) == len(buffer)


def _size_of(head: bytes) -> int | None:
    """Return the size of the file that begins like this, or None if that is no ring's."""
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
