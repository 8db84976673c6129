"""The items that a list may contain, and why others may not be in it."""

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.lists.filters.masks import FilterMask
from service.models.ranking.scoring import NO_ROWS, Rows

AnyRows: TypeAlias = NDArray[np.integer[Any]]
Cause: TypeAlias = Literal["include", "filter", "exclude", "hidden", "seen"]


class Candidates(NamedTuple):
    """The items that a list may contain.

    Attributes:
        n_items: Of the catalogue.
        include: The only candidates, int64, ascending; None for the whole catalogue.
        filter: The items that match the filter; None without one.
        exclude: Rows that the caller bars.
        hidden: Rows that are hidden or not available at the time.
        seen: Rows that the user has seen.
        placed: Rows with a fixed place in the list, which are no candidates for the others.
        retrieved: The only candidates, int64, ascending, which another service has found; None for all.
    """

    n_items: int
    include: Rows | None = None
    filter: FilterMask | None = None
    exclude: AnyRows = NO_ROWS
    hidden: AnyRows = NO_ROWS
    seen: AnyRows = NO_ROWS
    placed: AnyRows = NO_ROWS
    retrieved: Rows | None = None

    def rows(self) -> Rows | None:
        """Return the rows asked for and retrieved, int64, ascending, barred ones among them; None for all."""
        rows = self.include
        if self.retrieved is not None:
            rows = self.retrieved if rows is None else np.intersect1d(rows, self.retrieved, assume_unique=True)
        if self.filter is None:
            return rows
        return self.filter.rows if rows is None else rows[self.filter.mask[rows]]

    def barred(self) -> AnyRows:
        """Return the rows that cannot be candidates whatever the caller asks for, in any order."""
        return np.concatenate([self.exclude, self.hidden, self.seen, self.placed])

    def barred_by(self) -> dict[Cause, NDArray[np.bool_]]:
        """Return which items each cause bars, bool (n_items,); the causes of a caller come first."""
        barred: dict[Cause, NDArray[np.bool_]] = {}
        if self.include is not None:
            barred["include"] = ~self._mask(self.include)
        if self.filter is not None:
            barred["filter"] = ~self.filter.mask
        rows_by_cause: dict[Cause, AnyRows] = {"exclude": self.exclude, "hidden": self.hidden, "seen": self.seen}
        return barred | {cause: self._mask(rows) for cause, rows in rows_by_cause.items() if rows.size}

    def _mask(self, rows: AnyRows) -> NDArray[np.bool_]:
        mask = np.zeros(self.n_items, dtype=bool)
        mask[rows] = True
        return mask
