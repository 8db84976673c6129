"""The masks of filters, cached.

Invariant: a mask belongs to one revision of the items' attributes. The cache holds masks of one catalogue, and at most
so many bytes; the mask that was not used for the longest time goes first.
"""

from collections import OrderedDict
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.lists.filters.columns import Columns
from service.lists.filters.evaluation import Mask, matching
from service.lists.filters.parsing import parse

_CACHE_BYTES: Final = 64 << 20
# A mask, and perhaps the rows.
_BYTES_PER_ROW: Final = 9
_FIXED_BYTES: Final = 1024


class FilterMask:
    """The items that match a filter, read-only.

    Attributes:
        mask: Bool (n_rows,).
        count: How many match.
    """

    def __init__(self, mask: Mask) -> None:
        mask.flags.writeable = False
        self.mask: Final = mask
        self.count: Final = int(np.count_nonzero(mask))

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The items that match: int64 (count,), ascending."""
        return np.flatnonzero(self.mask)


class FilterMasks:
    """The masks of filters that were used lately; for one thread."""

    def __init__(self, cache_bytes: int = _CACHE_BYTES) -> None:
        self._cache_bytes = cache_bytes
        self._columns: Columns | None = None
        self._revision = 0
        self._masks: OrderedDict[str, FilterMask] = OrderedDict()

    def __len__(self) -> int:
        return len(self._masks)

    def of(self, text: str, columns: Columns) -> FilterMask:
        """Return the mask of a filter.

        Raises:
            FilterRefused: The filter cannot be read, or does not fit the attributes.
        """
        if columns is not self._columns or columns.revision != self._revision:
            self._columns, self._revision = columns, columns.revision
            self._masks.clear()
        parsed = parse(text)
        found = self._masks.get(parsed.text)
        if found is not None:
            self._masks.move_to_end(parsed.text)
            return found
        made = self._masks[parsed.text] = FilterMask(matching(parsed.expression, columns))
        limit = max(1, self._cache_bytes // (_BYTES_PER_ROW * columns.n_rows + _FIXED_BYTES))
        while len(self._masks) > limit:
            self._masks.popitem(last=False)
        return made
