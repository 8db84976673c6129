"""Merges layers into one: the last events of each user of the union of their sets.

Invariant: the result depends on the union alone, so layers may be merged in any order and grouping. Users are handled
in blocks, so that besides the result only one block is in memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from telemetry.live.column_file import Column, write_columns
from telemetry.live.event_layer import EVENT_COLUMNS, EventLayer, narrow, text_columns

_BLOCK_EVENTS: Final = 1 << 20
_RATIO: Final = 4

Ranks = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class KeepRules:
    """Which events stay.

    Attributes:
        most: How many events of a user.
        since_ms: Unix time in milliseconds before which none does.
        erased: By digest of users: the Unix time in milliseconds up to which none that was received does.
    """

    most: int
    since_ms: int
    erased: Mapping[bytes, int] = field(default_factory=dict)


def layers_to_merge(sizes: Sequence[int], n_new: int) -> int:
    """Return how many of the last layers a new one is merged with.

    Afterwards each layer is at least four times as large as the next one: there are few, and an event is rewritten
    about as often as there are layers.

    Args:
        sizes: The number of events of each layer, the oldest first.
        n_new: The number of new events.
    """
    count = 0
    for size in reversed(sizes):
        if size >= _RATIO * n_new:
            break
        n_new += size
        count += 1
    return count


def write_merged(path: Path, layers: Sequence[EventLayer], rules: KeepRules) -> None:
    """Write the layer that several layers make together.

    Raises:
        OSError: The disk refuses.
    """
    high, low, ranks = _users_of(layers)
    streams = sorted({stream for layer in layers for stream in layer.streams})
    values = np.unique(np.concatenate([layer.values for layer in layers]))
    items: dict[str, int] = {}
    for layer in layers:
        for item in layer.items():
            items.setdefault(item, len(items))
    sources = [_Source(layer, rank, items, values, streams) for layer, rank in zip(layers, ranks, strict=True)]
    erased = {row: ms for key, ms in rules.erased.items() if (row := _row_of(high, low, key)) is not None}
    blocks = [
        _merged_block(sources, first, last, rules, erased) for first, last in _blocks(sources, len(high), _BLOCK_EVENTS)
    ]
    counts = np.concatenate([counts for counts, _ in blocks]) if blocks else np.zeros(0, np.int64)
    present = counts > 0
    used = np.zeros(len(items), bool)
    for _, columns in blocks:
        used[columns["item"]] = True
    codes = np.cumsum(used) - 1

    def columns_of_file() -> Iterator[tuple[str, Column]]:
        yield "high", high[present]
        yield "low", low[present]
        yield "starts", narrow(np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[present])]))
        for name in EVENT_COLUMNS:
            parts = [columns.pop(name) for _, columns in blocks]
            if name == "item":
                parts = [codes[part] for part in parts]
            column = np.concatenate(parts) if parts else np.zeros(0, np.int64)
            yield name, column if name == "time" else narrow(column)
        yield "values", values
        yield from text_columns(item for item, code in items.items() if used[code])

    write_columns(path, columns_of_file(), {"streams": streams})


class _Source:
    """A layer with its codes translated into those of the result."""

    def __init__(
        self,
        layer: EventLayer,
        ranks: Ranks,
        items: Mapping[str, int],
        values: Column,
        streams: Sequence[tuple[str, int]],
    ) -> None:
        self.layer = layer
        self.ranks = ranks
        stream_codes = {stream: code for code, stream in enumerate(streams)}
        self._tables = {
            "item": np.array([items[item] for item in layer.items()], np.uint32),
            "value": np.concatenate([np.zeros(1, np.int64), np.searchsorted(values, layer.values) + 1]).astype(
                np.uint32
            ),
            "stream": np.array([stream_codes[stream] for stream in layer.streams], np.uint32),
        }

    def rows(self, first: int, last: int) -> slice:
        """Return which of its users have a rank from first to before last."""
        return slice(*np.searchsorted(self.ranks, [first, last]).tolist())

    def events(self, users: slice) -> slice:
        """Return which of its events are of some users."""
        return slice(int(self.layer.starts[users.start]), int(self.layer.starts[users.stop]))

    def column(self, name: str, part: slice) -> Column:
        """Return a part of a column with the result's codes."""
        column = self.layer.columns[name][part]
        table = self._tables.get(name)
        return column if table is None else table[column]


def _users_of(layers: Sequence[EventLayer]) -> tuple[Column, Column, list[Ranks]]:
    """Return the digests of all users, ascending, and the rank of each layer's users among them."""
    high = np.concatenate([layer.high for layer in layers])
    low = np.concatenate([layer.low for layer in layers])
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.cumsum(is_first) - 1
    ends = np.cumsum([layer.n_users for layer in layers])
    return high[is_first], low[is_first], np.split(ranks, ends[:-1])


def _row_of(high: Column, low: Column, key: bytes) -> int | None:
    first, second = (np.uint64(int.from_bytes(half)) for half in (key[:8], key[8:]))
    row = int(np.searchsorted(high, first))
    while row < len(high) and high[row] == first:
        if low[row] == second:
            return row
        row += 1
    return None


def _lengths(starts: Column) -> npt.NDArray[np.int64]:
    whole: npt.NDArray[np.int64] = starts.astype(np.int64)
    return whole[1:] - whole[:-1]


def _blocks(sources: Sequence[_Source], n_users: int, block_events: int) -> Iterator[tuple[int, int]]:
    """Divide the users by rank into blocks with about so many events."""
    counts = np.zeros(n_users, np.int64)
    for source in sources:
        counts[source.ranks] += _lengths(source.layer.starts)
    block = np.cumsum(counts) // block_events
    bounds = [0, *(np.flatnonzero(block[1:] != block[:-1]) + 1).tolist(), n_users]
    return ((first, last) for first, last in pairwise(bounds) if last > first)


def _merged_block(
    sources: Sequence[_Source], first: int, last: int, rules: KeepRules, erased: Mapping[int, int]
) -> tuple[npt.NDArray[np.int64], dict[str, Column]]:
    """Merge the events of the users with ranks from first to before last.

    Returns:
        How many events of each user stay, and the columns of these events.
    """
    users = [source.rows(first, last) for source in sources]
    parts = [source.events(rows) for source, rows in zip(sources, users, strict=True)]
    columns = {
        name: np.concatenate([source.column(name, part) for source, part in zip(sources, parts, strict=True)])
        for name in EVENT_COLUMNS
    }
    ranks = [source.ranks[rows] - first for source, rows in zip(sources, users, strict=True)]
    lengths = [
        _lengths(source.layer.starts[rows.start : rows.stop + 1]) for source, rows in zip(sources, users, strict=True)
    ]
    owner = np.concatenate([np.repeat(rank, length) for rank, length in zip(ranks, lengths, strict=True)])
    order = _order(owner, columns, np.concatenate(ranks), last - first)
    owner, times, streams, seqs = owner[order], columns["time"][order], columns["stream"][order], columns["seq"][order]
    keep = times >= rules.since_ms
    # Equal positions have equal times, so they are neighbours.
    keep[1:] &= (owner[1:] != owner[:-1]) | (streams[1:] != streams[:-1]) | (seqs[1:] != seqs[:-1])
    for row, erased_ms in erased.items():
        if first <= row < last:
            start, stop = np.searchsorted(owner, [row - first, row - first + 1])
            received = times[start:stop] + columns["delay"][order[start:stop]].astype(np.int64)
            keep[start:stop] &= received > erased_ms
    kept = np.flatnonzero(keep)
    counts = np.bincount(owner[kept], minlength=last - first)
    from_end = np.cumsum(counts)[owner[kept]] - np.arange(len(kept))
    taken = order[kept[from_end <= rules.most]]
    return np.minimum(counts, rules.most), {name: column[taken] for name, column in columns.items()}


def _order(owner: Column, columns: Mapping[str, Column], ranks: Ranks, n_users: int) -> npt.NDArray[np.int64]:
    """Return the order of events by (user, time, position); each source has its own in this order already."""
    order = np.argsort(owner, kind="stable")
    mixed = np.bincount(ranks, minlength=n_users)[owner[order]] > 1
    if mixed.any():
        some = order[mixed]
        keys = (columns["seq"][some], columns["stream"][some], columns["time"][some], owner[some])
        order[mixed] = some[np.lexsort(keys)]
    return order
