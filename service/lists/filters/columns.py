"""The items' attributes as filters read them; `service.catalogue` has them."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Column(Protocol):
    """The values of one attribute: strings, booleans and numbers, of which an item may have several or none."""

    @property
    def values(self) -> Iterable[str | bool]:
        """Every string and boolean that an item has."""
        ...

    @property
    def numbers(self) -> NDArray[np.float64] | None:
        """The number of each item, float64 (n_rows,), NaN without one; None if no item has a number."""
        ...

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether an item has the attribute: bool (n_rows,)."""
        ...

    def rows_of(self, value: str | bool) -> NDArray[np.int32]:  # noqa: FBT001 (a value of an attribute)
        """Return the items that have a value: int32 (m,), ascending."""
        ...


class Columns(Protocol):
    """All attributes of the items at one time."""

    @property
    def n_rows(self) -> int:
        """The number of items."""
        ...

    @property
    def revision(self) -> int:
        """Differs after every change of an item."""
        ...

    @property
    def column_names(self) -> Iterable[str]:
        """The names of all attributes."""
        ...

    def column(self, name: str) -> Column | None:
        """Return an attribute; None if no item has it."""
        ...
