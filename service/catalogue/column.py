"""One attribute of all items, laid out for filters.

Invariant: immutable, and the same whatever the order in which its items were given. An item may have texts (a category
or several), a flag and a number under one name; a filter asks for each kind by itself.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.models.items.record import AttributeValue, ItemRecord

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Category: TypeAlias = str | bool

_NO_ROWS: Final[Int32] = np.empty(0, dtype=np.int32)


class Cells(NamedTuple):
    """The values of one attribute, by kind, as (row, value) in any order."""

    texts: list[tuple[int, str]]
    flags: list[tuple[int, bool]]
    numbers: list[tuple[int, float]]

    def add(self, row: int, value: AttributeValue) -> None:
        """Add the value of an item."""
        if isinstance(value, str):
            self.texts.append((row, value))
        elif isinstance(value, bool):
            self.flags.append((row, value))
        elif isinstance(value, int | float):
            self.numbers.append((row, float(value)))
        else:
            self.texts.extend((row, text) for text in dict.fromkeys(value))


def cells_of(records: Iterable[tuple[int, ItemRecord]]) -> dict[str, Cells]:
    """Return the values of items, given by row, by attribute."""
    found: dict[str, Cells] = {}
    for row, record in records:
        for name, value in record.attributes.items():
            cells = found.get(name)
            if cells is None:
                cells = found[name] = Cells([], [], [])
            cells.add(row, value)
    return found


class Column:
    """The values of one attribute.

    Attributes:
        n_rows: The number of items.
        texts: The categories, ascending.
        text_starts: Int64 (len(texts) + 1,): where each category's rows begin in `text_rows`.
        text_rows: Int32, the rows of items by category, ascending in each.
        numbers: Float64 (n_rows,), NaN where an item has no number; None if none has.
        flags: Int8 (n_rows,), 0, 1, or -1 where an item has no flag; None if none has.
    """

    def __init__(
        self,
        n_rows: int,
        texts: list[str],
        text_starts: Int64,
        text_rows: Int32,
        numbers: Float64 | None = None,
        flags: NDArray[np.int8] | None = None,
    ) -> None:
        self.n_rows: Final = n_rows
        self.texts: Final = texts
        self.text_starts: Final = text_starts
        self.text_rows: Final = text_rows
        self.numbers: Final = numbers
        self.flags: Final = flags

    def rows_of(self, value: Category) -> Int32:
        """Return the items that have a category or a flag: int32, ascending."""
        if isinstance(value, bool):
            return _NO_ROWS if self.flags is None else np.flatnonzero(self.flags == int(value)).astype(np.int32)
        place = bisect_left(self.texts, value)
        if place == len(self.texts) or self.texts[place] != value:
            return _NO_ROWS
        return self.text_rows[self.text_starts[place] : self.text_starts[place + 1]]

    @property
    def values(self) -> list[Category]:
        """The categories, ascending, and the flags that items have."""
        flags: list[Category] = [] if self.flags is None else [flag for flag in (False, True) if flag in self.flags]
        return [*self.texts, *flags]

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Whether an item has a value, bool (n_rows,)."""
        found = np.zeros(self.n_rows, dtype=bool) if self.numbers is None else ~np.isnan(self.numbers)
        if self.flags is not None:
            found |= self.flags >= 0
        found[self.text_rows] = True
        return found

    @cached_property
    def texts_per_row(self) -> Int64:
        """How many categories an item has, int64 (n_rows,)."""
        return np.bincount(self.text_rows, minlength=self.n_rows)

    @property
    def size_bytes(self) -> int:
        """The memory of its arrays and of the references to its texts."""
        arrays = (self.text_starts, self.text_rows, self.numbers, self.flags)
        return sum(array.nbytes for array in arrays if array is not None) + 8 * len(self.texts)


def build(n_rows: int, cells: Cells, base: Column | None = None, replaced: NDArray[np.bool_] | None = None) -> Column:
    """Return a column from cells, over a base column without some of its rows.

    Args:
        n_rows: The number of items, at least that of the base.
        cells: The new values.
        base: The column to start from; None for none.
        replaced: Bool (base.n_rows,): rows whose values in the base do not count; None to keep all.
    """
    if base is not None and replaced is None and base.n_rows == n_rows and not any(cells):
        return base
    texts, codes, rows = _merged_texts(cells, base, replaced)
    order = np.lexsort((rows, codes))
    starts = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum(np.bincount(codes, minlength=len(texts)), out=starts[1:])
    numbers: Float64 | None = None
    flags: NDArray[np.int8] | None = None
    if cells.numbers or (base is not None and base.numbers is not None):
        numbers = np.full(n_rows, np.nan)
        if base is not None and base.numbers is not None:
            numbers[: base.n_rows] = base.numbers if replaced is None else np.where(replaced, np.nan, base.numbers)
        for row, number in cells.numbers:
            numbers[row] = number
    if cells.flags or (base is not None and base.flags is not None):
        flags = np.full(n_rows, -1, dtype=np.int8)
        if base is not None and base.flags is not None:
            flags[: base.n_rows] = base.flags if replaced is None else np.where(replaced, -1, base.flags)
        for row, flag in cells.flags:
            flags[row] = flag
    return Column(n_rows, texts, starts, rows[order], numbers, flags)


def _merged_texts(
    cells: Cells, base: Column | None, replaced: NDArray[np.bool_] | None
) -> tuple[list[str], Int64, Int32]:
    """Return the ascending texts, and the text's code and the row of each entry: int64 and int32 (m,)."""
    if base is None:
        base_texts: list[str] = []
        codes, rows = np.empty(0, dtype=np.int64), _NO_ROWS
    else:
        base_texts = base.texts
        codes = np.repeat(np.arange(len(base_texts)), np.diff(base.text_starts))
        rows = base.text_rows
        if replaced is not None:
            kept = ~replaced[rows]
            codes, rows = codes[kept], rows[kept]
    new_texts = {text for _, text in cells.texts}
    texts = sorted(new_texts.union(base_texts)) if new_texts else base_texts
    if len(texts) > len(base_texts):
        code_of: Mapping[str, int] = {text: code for code, text in enumerate(texts)}
        codes = np.fromiter((code_of[text] for text in base_texts), np.int64, len(base_texts))[codes]
        new_codes = [code_of[text] for _, text in cells.texts]
    else:
        new_codes = [bisect_left(texts, text) for _, text in cells.texts]
    new_rows = np.fromiter((row for row, _ in cells.texts), np.int32, len(cells.texts))
    return texts, np.concatenate([codes, np.array(new_codes, dtype=np.int64)]), np.concatenate([rows, new_rows])


NO_CELLS: Final = Cells([], [], [])
