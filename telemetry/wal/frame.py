"""A frame: one event's line as the ring buffer and the segments hold it.

Invariant: `{length u32, crc32 u32, seq u64, kind u8}` (little-endian, 17 bytes), then the line. The checksum covers
number, kind and line, so `scan` yields only what was framed, whatever else lies in the bytes. A line begins with
`{"schema":` and contains that nowhere else (JSON escapes the quotes of a text, and no attribute of an item is called
schema): `scan` finds the next frame behind damaged bytes by it. Pure.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

SERVED: Final = 1
FEEDBACK: Final = 2
SYSTEM: Final = 3
ITEM: Final = 4
# By the first letters of the class, which has the same offset in every line.
_KINDS: Final = {b"ser": SERVED, b"fee": FEEDBACK, b"sys": SYSTEM, b"ite": ITEM}
_CLASS_AT: Final = len(b'{"schema":1,"class":"')

_HEADER: Final = struct.Struct("<IIQB")
_CHECKED: Final = struct.Struct("<QB")
_UNCHECKED: Final = struct.Struct("<II")
HEADER_BYTES: Final = _HEADER.size
_LINE_START: Final = b'{"schema":'


class Frame(NamedTuple):
    """A frame found in some bytes: its event's number and kind, and the offsets of its start and end."""

    seq: int
    kind: int
    start: int
    end: int

    @property
    def line_start(self) -> int:
        """The offset of the line."""
        return self.start + HEADER_BYTES


def encode_frame(seq: int, line: bytes) -> bytes:
    """Return the frame of an encoded event with its number."""
    kind = _KINDS.get(line[_CLASS_AT : _CLASS_AT + 3], 0)
    checksum = zlib.crc32(line, zlib.crc32(_CHECKED.pack(seq, kind)))
    return _HEADER.pack(len(line), checksum, seq, kind) + line


def line_of(frame: bytes) -> bytes:
    """Return the line of a frame."""
    return frame[HEADER_BYTES:]


def seq_of(frame: bytes) -> int:
    """Return the sequence number of a frame."""
    seq: int = _CHECKED.unpack_from(frame, _UNCHECKED.size)[0]
    return seq


def frame_at(data: bytes, start: int, end: int) -> Frame | None:
    """Return the frame at offset `start`, or None if no whole and undamaged one ends by offset `end`."""
    if start < 0 or start + HEADER_BYTES > end:
        return None
    length, checksum, seq, kind = _HEADER.unpack_from(data, start)
    stop = start + HEADER_BYTES + length
    if not 0 < length <= end - start - HEADER_BYTES:
        return None
    if zlib.crc32(memoryview(data)[start + _UNCHECKED.size : stop]) != checksum:
        return None
    return Frame(seq, kind, start, stop)


def scan(data: bytes, start: int, end: int) -> Iterator[Frame]:
    """Yield every undamaged frame between two offsets, in the order of the bytes.

    Numbers may jump where bytes are damaged, and repeat where bytes were copied.
    """
    while True:
        frame = frame_at(data, start, end)
        if frame is not None:
            yield frame
            start = frame.end
            continue
        # Also the end of the loop in the zeros behind the last frame of a preallocated file: they hold no line.
        found = data.find(_LINE_START, max(start + HEADER_BYTES + 1, 0), end)
        if found < 0:
            return
        start = found - HEADER_BYTES
