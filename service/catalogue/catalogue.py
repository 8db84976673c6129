"""The item catalogue beside one snapshot of a model: what is known of each of its item rows.

Invariants: immutable; row i here is item row i of the snapshot, where items that the model does not know follow those
that it does. A record written through the API replaces the parts of the model's record that it has, see `overlaid`.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.catalogue.column import NO_CELLS, Column, build, cells_of
from service.models.items.record import NO_RECORD, AttributeValue, ItemRecord
from service.models.items.records import ItemRecords
from service.models.vocabulary import Vocabulary

Int64 = NDArray[np.int64]
Columns = Mapping[str, Column]

_revisions: Final = itertools.count(1)


class Catalogue:
    """The records of the rows of one snapshot.

    Args:
        items: The items, by row.
        published: The records of the model's own items; None without any.
        live: Records in place of published ones, and of the items that the model does not know, by row.
        columns: The attributes, see `model_columns` and `live_columns`.
        revision: That of the catalogue with the same columns; None for a new one.
        n_model_rows: How many rows the model itself has; None for all.
        watermark: The changes of items that it reflects.

    Attributes:
        n_rows: The number of items.
        n_model_rows: How many of them the model was trained on.
        revision: Names the columns: other ones of this process have another revision.
        watermark: The changes of items that it reflects, `producer:epoch-seq` by commas; empty without any.
        built_watermark: The changes that its columns and rows reflect; a build takes a moment. None for `watermark`.
        raters_watermark: The actions that its new rows reflect, see `raters.RaterState`; empty without any.
        limited: The records of `live` that are hidden or have a window; None to find them.
    """

    def __init__(
        self,
        items: Vocabulary,
        published: ItemRecords | None,
        live: Mapping[int, ItemRecord],
        columns: Columns,
        revision: int | None = None,
        n_model_rows: int | None = None,
        watermark: str = "",
        built_watermark: str | None = None,
        raters_watermark: str = "",
        limited: Mapping[int, ItemRecord] | None = None,
    ) -> None:
        self.n_rows: Final = len(items)
        self.n_model_rows: Final = self.n_rows if n_model_rows is None else n_model_rows
        self.revision: Final = next(_revisions) if revision is None else revision
        self.watermark: Final = watermark
        self.built_watermark: Final = watermark if built_watermark is None else built_watermark
        self.raters_watermark: Final = raters_watermark
        self._items = items
        self._published = published
        self._live = live
        self._columns = columns
        if limited is None:
            limited = {row: record for row, record in live.items() if record.is_limited}
        self._limited = limited
        in_order = sorted(limited)
        records = [limited[row] for row in in_order]
        self._limited_rows: Int64 = np.array(in_order, dtype=np.int64)
        self._hidden = np.array([record.hidden for record in records], dtype=bool)
        self._from_s = np.array([_or(record.available_from_s, -math.inf) for record in records])
        self._until_s = np.array([_or(record.available_until_s, math.inf) for record in records])
        self._unavailable = self._limited_rows[:0]
        self._unavailable_between_s = (math.inf, -math.inf)

    def __repr__(self) -> str:
        return f"<Catalogue revision={self.revision} rows={self.n_rows} live={len(self._live)}>"

    @property
    def recorded_watermark(self) -> str:
        """All watermarks as a text for an event, by semicolons; the later ones are left out where they say nothing."""
        if self.raters_watermark:
            return f"{self.watermark};{self.built_watermark};{self.raters_watermark}"
        same = self.watermark == self.built_watermark
        return self.watermark if same else f"{self.watermark};{self.built_watermark}"

    @property
    def live(self) -> Mapping[int, ItemRecord]:
        """The records in place of published ones, and of the items that the model does not know, by row."""
        return self._live

    def row_of(self, item_id: str) -> int | None:
        """Return the row of an item; None if the snapshot has none."""
        return self._items.row_of.get(item_id)

    def record(self, row: int) -> ItemRecord:
        """Return the record of an item; an empty one if nothing is known of it."""
        found = self._live.get(row)
        if found is not None:
            return found
        if self._published is None or row >= len(self._published):
            return NO_RECORD
        return self._published.record(row)

    def fields(self, row: int, names: Sequence[str]) -> dict[str, AttributeValue | None]:
        """Return the title and attributes of an item by name; None for what it does not have."""
        record = self.record(row)
        return {name: record.value(name) for name in names}

    @property
    def column_names(self) -> list[str]:
        """The attributes that some item has, ascending."""
        return sorted(self._columns)

    def column(self, name: str) -> Column | None:
        """Return an attribute of all items; a plural name answers for its singular; None if no item has it."""
        return self._columns.get(name) or self._columns.get(f"{name}s")

    def unavailable_rows(self, now_s: float) -> Int64:
        """Return the items that no list of this time, Unix seconds, may hold: int64, ascending."""
        if not self._limited_rows.size:
            return self._limited_rows
        from_s, until_s = self._unavailable_between_s
        if not from_s <= now_s < until_s:
            edges = np.concatenate([self._from_s, self._until_s])
            is_off = self._hidden | (now_s < self._from_s) | (now_s >= self._until_s)
            self._unavailable = self._limited_rows[is_off]
            self._unavailable_between_s = (
                float(edges[edges <= now_s].max(initial=-math.inf)),
                float(edges[edges > now_s].min(initial=math.inf)),
            )
        return self._unavailable

    def with_records(self, records: Mapping[int, ItemRecord], watermark: str) -> "Catalogue":
        """Return the catalogue with other records of some rows; its columns, and so its revision, stay as they are."""
        live = {**self._live, **records}
        limited = {row: record for row, record in self._limited.items() if row not in records}
        limited |= {row: record for row, record in records.items() if record.is_limited}
        return Catalogue(
            self._items,
            self._published,
            live,
            self._columns,
            self.revision,
            self.n_model_rows,
            watermark,
            self.built_watermark,
            self.raters_watermark,
            limited,
        )


def overlaid(published: ItemRecord, written: ItemRecord, *, has_attributes: bool) -> ItemRecord:
    """Return a written record, with the published title and attributes where the writer gave none.

    Args:
        has_attributes: Whether the writer gave attributes; given ones replace all published ones.
    """
    return ItemRecord(
        published.title if written.title is None else written.title,
        written.attributes if has_attributes else published.attributes,
        written.hidden,
        written.available_from_s,
        written.available_until_s,
    )


def model_columns(records: ItemRecords | None) -> dict[str, Column]:
    """Return the columns of a model's own catalogue; time is proportional to its items.

    Raises:
        ModelRefused: A record is not as this version writes it.
    """
    if records is None:
        return {}
    n_rows = len(records)
    cells = cells_of((row, records.record(row)) for row in range(n_rows))
    return {name: build(n_rows, values) for name, values in cells.items()}


def live_columns(base: Columns, n_model_rows: int, live: Mapping[int, ItemRecord], n_rows: int) -> dict[str, Column]:
    """Return columns in which live records stand in place of the model's own.

    Args:
        base: The columns of the model.
        n_model_rows: The rows of the model.
        live: Records by row, of rows of the model and behind them.
        n_rows: All rows.
    """
    cells = cells_of(live.items())
    changed = [row for row in live if row < n_model_rows]
    replaced = None
    if changed:
        replaced = np.zeros(n_model_rows, dtype=bool)
        replaced[changed] = True
    names = {**dict.fromkeys(base), **dict.fromkeys(cells)}
    return {name: build(n_rows, cells.get(name, NO_CELLS), base.get(name), replaced) for name in names}


def of_model(items: Vocabulary, records: ItemRecords | None) -> Catalogue:
    """Return the catalogue of a model to which nothing was written."""
    return Catalogue(items, records, {}, model_columns(records))


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
