"""A batch: a dense run of lines of one producer and epoch, and one stream entry.

Invariant: an entry's id is ``<epoch>-<last_seq>``; its fields are `first_seq`, `n`, `crc32` (of `data`, as eight
hexadecimal digits), `data` (`n` lines, each ending in a line feed, numbered first_seq to last_seq) and `after`.
`from_entry` accepts nothing else. Pure.

The producer holds nothing between `after` and the batch, so a reader that has reached `after` misses nothing that
could still come. Batches of older versions lack it.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from telemetry.errors import BadBatchError

# SQLite cannot store a larger number, and no producer reaches it.
MAX_NUMBER = 2**63 - 1
# No producer reaches this epoch, however often it takes a new one.
MAX_EPOCH = 2**53


class Position(NamedTuple):
    """A position in a producer's sequence; compares as Redis compares stream ids."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Parse a stream id, ``<epoch>-<seq>``.

        Raises:
            BadBatchError: The text is not a stream id.
        """
        epoch, dash, seq = text.partition("-")
        if not (dash and epoch.isascii() and epoch.isdecimal() and seq.isascii() and seq.isdecimal()):
            raise BadBatchError(f"{text!r} is not a stream id.")
        return cls(int(epoch), int(seq))

    @property
    def in_range(self) -> bool:
        """Whether a producer can reach this position."""
        return self.epoch < MAX_EPOCH and self.seq <= MAX_NUMBER


class EventPosition(NamedTuple):
    """The position of an event, with its producer."""

    producer: str
    epoch: int
    seq: int


class Entry(NamedTuple):
    """A stream entry as Redis returns it; `fields` is None if it was trimmed while it was pending."""

    entry_id: str
    fields: Mapping[bytes, bytes] | None


@dataclass(frozen=True, slots=True)
class Batch:
    """A run of lines; `lines[i]` has the number `first_seq + i`, and nothing is held between `after` and them."""

    epoch: int
    first_seq: int
    lines: Sequence[bytes]
    after: Position | None = None

    @property
    def last_seq(self) -> int:
        """The number of the last line."""
        return self.first_seq + len(self.lines) - 1

    @property
    def entry_id(self) -> str:
        """The stream id of its entry."""
        return f"{self.epoch}-{self.last_seq}"


def to_fields(batch: Batch) -> dict[bytes, bytes]:
    """Return the fields of the entry of a batch with at least one line."""
    data = b"".join(batch.lines)
    fields = {
        b"first_seq": b"%d" % batch.first_seq,
        b"n": b"%d" % len(batch.lines),
        b"crc32": b"%08x" % zlib.crc32(data),
        b"data": data,
    }
    if batch.after is not None:
        fields[b"after"] = b"%d-%d" % batch.after
    return fields


def from_entry(entry: Entry) -> Batch:
    """Return the batch of an entry; its lines end in line feeds.

    Raises:
        BadBatchError: The entry is not a valid batch.
    """
    position = Position.parse(entry.entry_id)
    if not position.in_range:
        raise BadBatchError(f"Entry {entry.entry_id} has an id that no producer uses.")
    fields = entry.fields
    if fields is None:
        raise BadBatchError(f"Entry {entry.entry_id} was trimmed before it was read.")
    try:
        first_seq, n, crc32, data = (
            int(fields[b"first_seq"]),
            int(fields[b"n"]),
            int(fields[b"crc32"], 16),
            fields[b"data"],
        )
        after = Position.parse(fields[b"after"].decode("ascii", "replace")) if b"after" in fields else None
    except KeyError as error:
        raise BadBatchError(f"Entry {entry.entry_id} has no field {error}.") from None
    except ValueError:
        raise BadBatchError(f"Entry {entry.entry_id} has a field that is not a number.") from None
    if zlib.crc32(data) != crc32:
        raise BadBatchError(f"The data of entry {entry.entry_id} does not have its checksum.")
    lines = data.splitlines(keepends=True)
    if len(lines) != n or n < 1 or not data.endswith(b"\n"):
        raise BadBatchError(f"Entry {entry.entry_id} holds {len(lines)} whole lines instead of {n}.")
    if first_seq < 1 or first_seq + n - 1 != position.seq:
        raise BadBatchError(f"Entry {entry.entry_id} cannot start at {first_seq} with {n} lines.")
    return Batch(position.epoch, first_seq, lines, after)
