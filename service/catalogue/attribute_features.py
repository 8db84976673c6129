"""Attributes of items as numbers: one column a category, flag or range of numbers.

Invariant: the features are chosen from some rows (those that a model knows) and hold for all rows. The most frequent
ones are kept, at most `MAX_FEATURES`. Of an attribute with several categories each weighs the root of their number
less, so that an item with many tags is no longer than one with a few. Pure.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.catalogue.column import Column

MAX_FEATURES: Final = 1_000
# A category of a single item says nothing of others.
_MIN_ITEMS: Final = 2
# Numbers are cut into as many ranges of equal numbers of items, and count by themselves, too.
_RANGES: Final = 8
_NO_ROWS: Final = np.empty(0, dtype=np.int64)

Cells = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Rows, int64 (m,), and the value of each, float64 (m,)."""


class _Feature(NamedTuple):
    attribute: str
    kind: str
    key: str | float | None
    n_items: int


class AttributeFeatures:
    """The features of a catalogue.

    Args:
        columns: The attributes, of which the first rows are looked at.
        n_rows: How many of them.
    """

    def __init__(self, columns: Mapping[str, Column], n_rows: int) -> None:
        found = [feature for name in sorted(columns) for feature in _features(name, columns[name], n_rows)]
        # Of equally frequent ones the order of names decides, so that every replica chooses the same.
        kept = sorted(range(len(found)), key=lambda index: (-found[index].n_items, index))[:MAX_FEATURES]
        self._features: Final = [found[index] for index in sorted(kept)]
        self._scales: Final = {
            name: _scale(column.numbers[:n_rows]) for name, column in columns.items() if column.numbers is not None
        }

    def __len__(self) -> int:
        return len(self._features)

    def matrix(self, columns: Mapping[str, Column], start: int, stop: int) -> csr_array:
        """Return the features of rows `start` to `stop`: float64 CSR (stop - start, len(self)), indices ascending."""
        rows: list[NDArray[np.int64]] = []
        codes: list[NDArray[np.int64]] = []
        values: list[NDArray[np.float64]] = []
        for code, feature in enumerate(self._features):
            column = columns.get(feature.attribute)
            if column is None:
                continue
            own_rows, own_values = self._cells(feature, column)
            first, last = np.searchsorted(own_rows, (start, stop))
            rows.append(own_rows[first:last] - start)
            values.append(own_values[first:last])
            codes.append(np.full(last - first, code))
        shape = (stop - start, len(self))
        if not rows:
            return csr_array(shape)
        matrix = csr_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(codes))), shape=shape)
        matrix.sort_indices()
        return matrix

    def _cells(self, feature: _Feature, column: Column) -> Cells:
        if feature.kind == "text":
            rows = column.rows_of(str(feature.key)).astype(np.int64)
            return rows, 1 / np.sqrt(column.texts_per_row[rows])
        if feature.kind == "flag":
            rows = np.flatnonzero(column.flags == 1) if column.flags is not None else _NO_ROWS
            return rows, np.ones(rows.size)
        if column.numbers is None:
            return _NO_ROWS, np.empty(0)
        mean, deviation = self._scales.get(feature.attribute, (0.0, 1.0))
        rows = np.flatnonzero(~np.isnan(column.numbers))
        if feature.kind == "number":
            # Beyond three deviations a number says no more.
            return rows, np.clip((column.numbers[rows] - mean) / deviation, -3, 3)
        rows = rows[column.numbers[rows] >= float(feature.key or 0)]
        return rows, np.ones(rows.size)


def _features(name: str, column: Column, n_rows: int) -> Iterator[_Feature]:
    counts = np.zeros(len(column.texts), dtype=np.int64)
    inside = column.text_rows < n_rows
    if inside.any():
        codes = np.repeat(np.arange(len(column.texts)), np.diff(column.text_starts))
        counts = np.bincount(codes[inside], minlength=len(column.texts))
    for code in np.flatnonzero(counts >= _MIN_ITEMS).tolist():
        yield _Feature(name, "text", column.texts[code], int(counts[code]))
    if column.flags is not None and (n_true := int((column.flags[:n_rows] == 1).sum())) >= _MIN_ITEMS:
        yield _Feature(name, "flag", None, n_true)
    if column.numbers is not None:
        numbers = column.numbers[:n_rows]
        numbers = numbers[~np.isnan(numbers)]
        if np.unique(numbers).size >= _MIN_ITEMS:
            yield _Feature(name, "number", None, numbers.size)
            edges = np.unique(np.quantile(numbers, np.arange(1, _RANGES) / _RANGES, method="lower"))
            for edge in edges[edges > numbers.min()].tolist():
                yield _Feature(name, "range", edge, int((numbers >= edge).sum()))


def _scale(numbers: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean and the deviation of the numbers that are there; 0 and 1 without any."""
    known = numbers[~np.isnan(numbers)]
    if not known.size:
        return 0.0, 1.0
    deviation = float(known.std())
    return float(known.mean()), deviation if deviation > 0 else 1.0
