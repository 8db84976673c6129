"""The categories of items, as networks read them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class ItemFeatures(NamedTuple):
    """The categories of m items.

    Attributes:
        indptr: Int64 (m + 1,), where the categories of each item begin and end in `ids`.
        ids: Int32, ascending within an item, each once; 0 for an unknown category.
    """

    indptr: NDArray[np.int64]
    ids: NDArray[np.int32]
