"""The items that lists may contain, as columns in the order of popularity, so that ties go to the smaller column."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.generation.lists.selection import NO_COLUMN
from service.models.snapshot import Float32, ModelSnapshot


class ItemTable(NamedTuple):
    """The items of a model that lists may contain.

    Attributes:
        factors: Float32 (m, k), C order.
        bias: Float32 (m,).
        rows: Int32 (m,), the row of each column in the model.
        column_of_row: Int32 (n_items,), the column of each row; `NO_COLUMN` (-1) of an item that no list contains.
    """

    factors: Float32
    bias: Float32
    rows: NDArray[np.int32]
    column_of_row: NDArray[np.int32]

    @classmethod
    def of(cls, snapshot: ModelSnapshot, allowed: NDArray[np.bool_] | None) -> "ItemTable":
        """Return the items of a mask, bool (n_items,); None for all."""
        rows = snapshot.popular_rows
        if allowed is not None:
            rows = rows[allowed[rows]]
        column_of_row = np.full(len(snapshot.items), NO_COLUMN, np.int32)
        column_of_row[rows] = np.arange(rows.size, dtype=np.int32)
        return cls(
            snapshot.item_factors.take(rows, axis=0),
            snapshot.item_bias.take(rows),
            rows.astype(np.int32),
            column_of_row,
        )
