"""Counts of events that were dropped or refused and that no gap record counts yet, in the first page of the ring.

Invariant: a count survives the process and the epoch, each kind for itself; a damaged one counts as none.
"""

import struct
import zlib
from typing import Final, NamedTuple

from telemetry.wal.disk import Buffer


class DropKind(NamedTuple):
    """The class of a dropped event, and the reason of the drop."""

    of_class: str
    reason: str


NO_BUDGET: Final = "no budget"
NOT_JSON: Final = "not json"
DISK: Final = "disk"
# A count is stored under its kind's index here, so kinds are only ever added, at the end, up to 16.
DROP_KINDS: Final = (
    DropKind("served", NO_BUDGET),
    DropKind("served", NOT_JSON),
    DropKind("feedback", NO_BUDGET),
    DropKind("feedback", NOT_JSON),
    DropKind("feedback", DISK),
)
_MOST_KINDS: Final = 16
_START: Final = 256
_COUNT: Final = struct.Struct("<QQI")
_CHECKED_BYTES: Final = _COUNT.size - 4


class DropCount(NamedTuple):
    """How many events were dropped, and the sequence number before the first of them."""

    events: int
    after_seq: int


def read_drops(buffer: Buffer) -> dict[int, DropCount]:
    """Return the counts in a ring's bytes, by index of `DROP_KINDS`."""
    found = {}
    for kind in range(_MOST_KINDS):
        start = _START + kind * _COUNT.size
        events, after_seq, checksum = _COUNT.unpack_from(buffer, start)
        if events and zlib.crc32(buffer[start : start + _CHECKED_BYTES]) == checksum:
            found[kind] = DropCount(events, after_seq)
    return found


class UnrecordedDrops:
    """The counts in an open ring.

    Attributes:
        counts: By index of `DROP_KINDS`.
    """

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self.counts = read_drops(buffer)

    def add(self, drop: DropKind, events: int, after_seq: int) -> None:
        """Count dropped events; `after_seq` counts only for the first of a kind."""
        kind = DROP_KINDS.index(drop)
        before = self.counts.get(kind, DropCount(0, after_seq))
        self.counts[kind] = before._replace(events=before.events + events)
        self._write(kind, self.counts[kind])

    def remove(self, kind: int) -> None:
        """Remove the count of a kind, which a gap record has now."""
        del self.counts[kind]
        self._write(kind, DropCount(0, 0))

    def _write(self, kind: int, count: DropCount) -> None:
        start = _START + kind * _COUNT.size
        checked = _COUNT.pack(*count, 0)[:_CHECKED_BYTES]
        self._buffer[start : start + _COUNT.size] = checked + zlib.crc32(checked).to_bytes(4, "little")
