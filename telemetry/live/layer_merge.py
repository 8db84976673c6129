"""Merges layers into one: the last events of each user of the union of their sets.

Invariant: the result depends on the union alone, so layers may be merged in any order and grouping. Users are handled
in blocks, and columns one after the other, so that the memory needed is a twentieth of the result and one block.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from telemetry.live.column_file import Column, write_columns
from telemetry.live.event_layer import EventLayer, narrow, narrowest, row_of, text_columns

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
    erased = {row: ms for key, ms in rules.erased.items() if (row := row_of(high, low, key)) is not None}
    used = np.zeros(len(items), bool)
    blocks = []
    for first, last in _blocks(sources, len(high), _BLOCK_EVENTS):
        block = _Block(sources, first, last)
        block.choose(rules, erased)
        used[block.column("item")] = True
        blocks.append(block)
    counts = np.concatenate([np.zeros(0, np.int64), *(block.counts for block in blocks)])
    present = counts > 0
    codes = (np.cumsum(used) - 1).astype(narrowest(int(used.sum())))
    types = {
        "value": narrowest(len(values)),
        "stream": narrowest(len(streams)),
        **{
            name: np.result_type(*(layer.columns[name] for layer in layers))
            for name in ("type", "time", "delay", "seq")
        },
    }

    def columns() -> Iterator[tuple[str, Iterable[Column]]]:
        yield "high", [high[present]]
        yield "low", [low[present]]
        yield "starts", [narrow(np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[present])]))]
        yield "item", chain([codes[:0]], (codes[block.column("item")] for block in blocks))
        for name, kind in types.items():
            yield name, chain([np.zeros(0, kind)], (block.column(name).astype(kind) for block in blocks))
        yield "values", [values]
        for name, column in text_columns(item for item, code in items.items() if used[code]).items():
            yield name, [column]

    write_columns(path, columns(), {"streams": streams})


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


class _Block:
    """The users with ranks from first to before last, and which of their events stay.

    Attributes:
        counts: How many events of each user stay.
    """

    def __init__(self, sources: Sequence[_Source], first: int, last: int) -> None:
        self._first, self._n_users = first, last - first
        self._sources = sources
        self._users = [source.rows(first, last) for source in sources]
        self._parts = [source.events(rows) for source, rows in zip(sources, self._users, strict=True)]
        self._taken: npt.NDArray[np.uint32] = np.zeros(0, np.uint32)
        self.counts: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def column(self, name: str) -> Column:
        """Return a column of the events that stay, in their order."""
        return self._whole(name)[self._taken]

    def choose(self, rules: KeepRules, erased: Mapping[int, int]) -> None:
        """Decide which events stay; `erased` is by rank."""
        users = zip(self._sources, self._users, strict=True)
        ranks = [source.ranks[rows] - self._first for source, rows in users]
        users = zip(self._sources, self._users, strict=True)
        lengths = [_lengths(source.layer.starts[rows.start : rows.stop + 1]) for source, rows in users]
        owner = np.concatenate([np.repeat(rank, length) for rank, length in zip(ranks, lengths, strict=True)])
        columns = {name: self._whole(name) for name in ("time", "stream", "seq")}
        order = _order(owner, columns, np.concatenate(ranks), self._n_users)
        owner, times, streams, seqs = owner[order], *(column[order] for column in columns.values())
        keep = times >= rules.since_ms
        # Equal positions have equal times, so they are neighbours.
        keep[1:] &= (owner[1:] != owner[:-1]) | (streams[1:] != streams[:-1]) | (seqs[1:] != seqs[:-1])
        here = {row - self._first: ms for row, ms in erased.items() if 0 <= row - self._first < self._n_users}
        if here:
            received = times + self._whole("delay")[order].astype(np.int64)
            for row, erased_ms in here.items():
                start, stop = np.searchsorted(owner, [row, row + 1])
                keep[start:stop] &= received[start:stop] > erased_ms
        kept = np.flatnonzero(keep)
        counts = np.bincount(owner[kept], minlength=self._n_users)
        from_end = np.cumsum(counts)[owner[kept]] - np.arange(len(kept))
        self._taken = order[kept[from_end <= rules.most]].astype(np.uint32)
        self.counts = np.minimum(counts, rules.most)

    def _whole(self, name: str) -> Column:
        """Return a column of all events, source by source."""
        parts = zip(self._sources, self._parts, strict=True)
        return np.concatenate([source.column(name, part) for source, part in parts])


def _order(owner: Column, columns: Mapping[str, Column], ranks: Ranks, n_users: int) -> npt.NDArray[np.int64]:
    """Return the order of events by (user, time, position); each source has its own in this order already."""
    order = np.argsort(owner, kind="stable")
    mixed = np.bincount(ranks, minlength=n_users)[owner[order]] > 1
    if mixed.any():
        some = order[mixed]
        keys = (columns["seq"][some], columns["stream"][some], columns["time"][some], owner[some])
        order[mixed] = some[np.lexsort(keys)]
    return order
