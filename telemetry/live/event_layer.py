"""A layer: an immutable set of live events in a file of columns, with an index by user.

Users are stored as 128-bit digests of their ids, sorted; no id of a user is in a file. The events of a user are
consecutive, sorted by (time_ms, position). Items, values and (producer, epoch) are codes of tables, and each column has
the narrowest type that holds it: about 22 bytes an event.
"""

from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from telemetry.batch import EventPosition
from telemetry.live.column_file import Column, ColumnFile, write_columns
from telemetry.live.live_event import LIVE_TYPES, LiveEvent, last_events

KEY_BYTES: Final = 16
_HALF_BYTES: Final = 8
_CODES: Final = (np.uint8, np.uint16, np.uint32, np.uint64)


def user_key(user_id: str) -> bytes:
    """Return the digest that stands for a user in files: BLAKE2b with 16 bytes (RFC 7693)."""
    return blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def first_half(key: bytes) -> int:
    """Return the first half of a digest as a number: enough to tell users apart where a mistake is harmless."""
    return int.from_bytes(key[:_HALF_BYTES])


def row_of(high: Column, low: Column, key: bytes) -> int | None:
    """Find a user among sorted digests.

    Args:
        high: Uint64 (n_users,), ascending: the first halves of the digests.
        low: Uint64 (n_users,): the second halves, ascending where the first are equal.
        key: The digest of the user.

    Returns:
        The row; None if the user is not there.
    """
    first, second = (np.uint64(int.from_bytes(half)) for half in (key[:_HALF_BYTES], key[_HALF_BYTES:]))
    row = int(np.searchsorted(high, first))
    while row < len(high) and high[row] == first:
        if low[row] == second:
            return row
        row += 1
    return None


class EventLayer:
    """An open layer.

    Attributes:
        name: The file's name.
        size_bytes: The file's size.
        high: Uint64 (n_users,), ascending: the first halves of the users' digests.
        low: Uint64 (n_users,): the second halves.
        starts: Unsigned (n_users + 1,): where the events of each user begin.
        columns: Unsigned (n_events,) by name: `item`, `type`, `value`, `delay`, `stream`, `seq` (codes but for the
            milliseconds from `time` to the receipt and the sequence number), and Int64 `time`, in milliseconds.
        values: Float64: the values by their code less 1; code 0 is None.
        streams: The (producer, epoch) by their code, ascending.

    Raises:
        StateError: The file is damaged or of another version.
        FileNotFoundError: There is none.
    """

    def __init__(self, path: Path) -> None:
        self._file = file = ColumnFile(path)
        self.name = path.name
        self.size_bytes = file.size_bytes
        self.high, self.low, self.starts = file.column("high"), file.column("low"), file.column("starts")
        self.columns = {name: file.column(name) for name in EVENT_COLUMNS}
        self.values: Column = file.column("values")
        self._item_text, self._item_ends = file.column("item_text"), file.column("item_ends")
        self.streams: list[tuple[str, int]] = [(producer, epoch) for producer, epoch in file.facts["streams"]]

    @property
    def n_users(self) -> int:
        """How many users have an event here."""
        return len(self.high)

    @property
    def n_events(self) -> int:
        """How many events it holds."""
        return len(self.columns["seq"])

    def verify(self) -> None:
        """Compare the file with its checksums; raises StateError."""
        self._file.verify()

    def user_keys(self) -> list[bytes]:
        """Return the digests of its users."""
        halves = zip(self.high.tolist(), self.low.tolist(), strict=True)
        return [high.to_bytes(_HALF_BYTES) + low.to_bytes(_HALF_BYTES) for high, low in halves]

    def row_of(self, key: bytes) -> int | None:
        """Return the row of a user by digest; None if the user has no event here."""
        return row_of(self.high, self.low, key)

    def events(self, key: bytes, user_id: str) -> list[LiveEvent]:
        """Return the events of a user, by digest and id, in their order."""
        row = self.row_of(key)
        if row is None:
            return []
        part = slice(int(self.starts[row]), int(self.starts[row + 1]))
        items, types, values, times, delays, streams, seqs = (
            self.columns[name][part].tolist() for name in EVENT_COLUMNS
        )
        return [
            LiveEvent(
                user_id,
                self.item(item),
                LIVE_TYPES[type_],
                float(self.values[value - 1]) if value else None,
                time_ms,
                time_ms + delay_ms,
                "",
                EventPosition(self.streams[stream][0], self.streams[stream][1], seq),
            )
            for item, type_, value, time_ms, delay_ms, stream, seq in zip(
                items, types, values, times, delays, streams, seqs, strict=True
            )
        ]

    def item(self, code: int) -> str:
        """Return the item of a code."""
        start = int(self._item_ends[code - 1]) if code else 0
        return self._item_text[start : int(self._item_ends[code])].tobytes().decode()

    def items(self) -> list[str]:
        """Return all items by code."""
        return [self.item(code) for code in range(len(self._item_ends))]

    def item_counts(self, types: Collection[str], from_ms: int) -> tuple[list[str], NDArray[np.int64]]:
        """Return the items, and how many events of some types each has from a time on: int64 (n_items,)."""
        codes = [LIVE_TYPES.index(name) for name in types]
        is_counted = (self.columns["time"] >= from_ms) & np.isin(self.columns["type"], codes)
        items = self.items()
        return items, np.bincount(self.columns["item"][is_counted], minlength=len(items))


EVENT_COLUMNS: Final = ("item", "type", "value", "time", "delay", "stream", "seq")


def write_layer(path: Path, events: Iterable[LiveEvent], most: int) -> None:
    """Write a layer of some events, in any order, at most `most` of a user.

    Raises:
        OSError: The disk refuses.
    """
    by_user: dict[str, list[LiveEvent]] = {}
    for event in events:
        by_user.setdefault(event.user_id, []).append(event)
    keys = sorted((user_key(user_id), user_id) for user_id in by_user)
    groups = [last_events(by_user[user_id], most) for _, user_id in keys]
    rows = [event for group in groups for event in group]
    items = {item: code for code, item in enumerate(dict.fromkeys(event.item_id for event in rows))}
    given = (event.value for event in rows if event.value is not None)
    values = {value: code for code, value in enumerate(dict.fromkeys(given), 1)}
    streams = sorted({event.position[:2] for event in rows})
    codes = {stream: code for code, stream in enumerate(streams)}
    halves = np.frombuffer(b"".join(key for key, _ in keys), ">u8").reshape(-1, 2).astype(np.uint64)
    ends = np.cumsum([len(group) for group in groups], dtype=np.int64)

    numbers = {
        "starts": np.concatenate([np.zeros(1, np.int64), ends]),
        "item": np.array([items[event.item_id] for event in rows], np.int64),
        "type": np.array([LIVE_TYPES.index(event.type) for event in rows], np.int64),
        "value": np.array([_code(values, event.value) for event in rows], np.int64),
        "delay": np.array([event.received_ms - event.time_ms for event in rows], np.int64),
        "stream": np.array([codes[event.position[:2]] for event in rows], np.int64),
        "seq": np.array([event.position.seq for event in rows], np.int64),
    }
    columns = {
        "high": halves[:, 0],
        "low": halves[:, 1],
        **{name: narrow(column) for name, column in numbers.items()},
        "time": np.array([event.time_ms for event in rows], np.int64),
        "values": np.array(list(values), np.float64),
        **text_columns(items),
    }
    write_columns(path, ((name, [column]) for name, column in columns.items()), {"streams": streams})


def _code(values: Mapping[float, int], value: float | None) -> int:
    return 0 if value is None else values[value]


def text_columns(items: Iterable[str]) -> dict[str, Column]:
    """Return the columns of the table of items."""
    encoded = [item.encode() for item in items]
    ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
    return {"item_text": np.frombuffer(b"".join(encoded), np.uint8), "item_ends": narrow(ends)}


def narrow(column: Column) -> Column:
    """Return a column of non-negative numbers in the narrowest unsigned type that holds it."""
    return column.astype(narrowest(int(column.max()) if len(column) else 0), copy=False)


def narrowest(most: int) -> np.dtype[Any]:
    """Return the narrowest unsigned type that holds a number."""
    return np.dtype(next(kind for kind in _CODES if most <= np.iinfo(kind).max))
