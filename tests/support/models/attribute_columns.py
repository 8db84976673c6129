"""Items' attributes in memory, for tests of filters and lists."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.lists.filters.columns import Column

AttributeValue: TypeAlias = str | bool | float | list[str]
Attributes: TypeAlias = Mapping[str, AttributeValue]


class ListedColumn:
    """One attribute, from the attributes of each item."""

    def __init__(self, items: Sequence[Attributes], name: str) -> None:
        self._rows: dict[str | bool, list[int]] = {}
        self.present = np.array([name in item for item in items], dtype=bool)
        numbers = np.full(len(items), np.nan)
        for row, item in enumerate(items):
            value = item.get(name)
            if isinstance(value, str | bool):
                self._rows.setdefault(value, []).append(row)
            elif isinstance(value, list):
                for one in dict.fromkeys(value):
                    self._rows.setdefault(one, []).append(row)
            elif value is not None:
                numbers[row] = value
        self.numbers = None if np.isnan(numbers).all() else numbers

    @property
    def values(self) -> Sequence[str | bool]:
        return list(self._rows)

    def rows_of(self, value: str | bool) -> NDArray[np.int32]:
        return np.array(self._rows.get(value, []), dtype=np.int32)


class ListedColumns:
    """The attributes of all items; `replace` makes another revision."""

    def __init__(self, items: Sequence[Attributes]) -> None:
        self.revision = 1
        self._items = list(items)

    @property
    def n_rows(self) -> int:
        return len(self._items)

    @property
    def column_names(self) -> list[str]:
        return sorted({name for item in self._items for name in item})

    def column(self, name: str) -> Column | None:
        return ListedColumn(self._items, name) if name in self.column_names else None

    def replace(self, row: int, attributes: Attributes) -> None:
        self._items[row] = attributes
        self.revision += 1
