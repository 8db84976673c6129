"""A record: one event's line as the ring and the segments hold it, so that damage is always noticed.

Invariant: `{length u32, crc32 u32, seq u64, kind u8}` (little-endian, 17 bytes), then the line. The checksum covers
number, kind and line; so what `scan` yields is what was framed, whatever else lies in the bytes. A line begins
with `{"schema":` and holds that nowhere else (JSON escapes the quotes of a text), which is how `scan` finds the next
record behind damaged bytes. Pure.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

SERVED: Final = 1
FEEDBACK: Final = 2
SYSTEM: Final = 3
# By the first letters of the class, which every line of ours has in the same place.
_KINDS: Final = {b"ser": SERVED, b"fee": FEEDBACK, b"sys": SYSTEM}
_CLASS_AT: Final = len(b'{"schema":1,"class":"')

_HEADER: Final = struct.Struct("<IIQB")
_CHECKED: Final = struct.Struct("<QB")
_UNCHECKED: Final = struct.Struct("<II")
HEADER_BYTES: Final = _HEADER.size
_LINE_START: Final = b'{"schema":'


class Record(NamedTuple):
    """A record found: its number, its kind, and where it and its line lie."""

    seq: int
    kind: int
    start: int
    end: int

    @property
    def line_start(self) -> int:
        """Where its line begins."""
        return self.start + HEADER_BYTES


def frame(seq: int, line: bytes) -> bytes:
    """Make a record.

    Args:
        seq: The event's number.
        line: The encoded event.

    Returns:
        The record's bytes.
    """
    kind = _KINDS.get(line[_CLASS_AT : _CLASS_AT + 3], 0)
    checksum = zlib.crc32(line, zlib.crc32(_CHECKED.pack(seq, kind)))
    return _HEADER.pack(len(line), checksum, seq, kind) + line


def line_of(record: bytes) -> bytes:
    """Return the line of a framed record."""
    return record[HEADER_BYTES:]


def seq_of(record: bytes) -> int:
    """Return the number of a framed record."""
    seq: int = _CHECKED.unpack_from(record, _UNCHECKED.size)[0]
    return seq


def at(data: bytes, start: int, end: int) -> Record | None:
    """Read the record at a place.

    Args:
        data: Bytes of a ring or a segment.
        start: Where a record may begin.
        end: Where the bytes that count end.

    Returns:
        The record, or None if there is no whole and undamaged one.
    """
    if start < 0 or start + HEADER_BYTES > end:
        return None
    length, checksum, seq, kind = _HEADER.unpack_from(data, start)
    stop = start + HEADER_BYTES + length
    if not 0 < length <= end - start - HEADER_BYTES:
        return None
    if zlib.crc32(memoryview(data)[start + _UNCHECKED.size : stop]) != checksum:
        return None
    return Record(seq, kind, start, stop)


def scan(data: bytes, start: int, end: int) -> Iterator[Record]:
    """Find every undamaged record, in the order of the bytes.

    Args:
        data: Bytes of a segment.
        start: Where the first record begins.
        end: Where the bytes that count end.

    Yields:
        Each record; numbers may jump where bytes were damaged, and repeat where they were copied.
    """
    while True:
        record = at(data, start, end)
        if record is not None:
            yield record
            start = record.end
            continue
        # Also the way out of the zeros that a preallocated file ends with: there is no line in them.
        found = data.find(_LINE_START, max(start + HEADER_BYTES + 1, 0), end)
        if found < 0:
            return
        start = found - HEADER_BYTES
