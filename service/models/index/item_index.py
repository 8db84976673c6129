"""The index of a model's items: which items may be a user's best, without scoring all of them.

Inverted lists (Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", TPAMI 33(1), 2011, section
IV; without the quantisation): items are in cells by direction, and a query scores the items of the cells nearest to it
(`nprobe` of them). The index is faiss's `IndexIVFFlat` over inner products. An item is its factors, and its bias as one
more dimension, in which every query is 1.

Invariants: what is found depends on the query, the barred items and the model alone: queries are searched one by one,
on one thread. No barred item is found. The file is mapped, so that replicas share its memory.
"""

import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.models.index.library import faiss

Float32 = NDArray[np.float32]
Rows = NDArray[np.int64]

KIND: Final = "ivf_flat"


class Found(NamedTuple):
    """Items that a search found.

    Attributes:
        rows: Int64 (m,), in any order; fewer than asked for if the cells hold no more.
        scores: Float32 (m,): inner products and biases.
    """

    rows: Rows
    scores: Float32


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """One index.

    Attributes:
        index: The faiss index.
        n_probe: How many cells a query searches.
        source: The file that it was read from; None if it is in memory.
    """

    index: Any = field(repr=False)
    n_probe: int
    source: Path | None = None

    @property
    def n_items(self) -> int:
        """How many items it has: rows 0 to n_items - 1 of the model."""
        return int(self.index.ntotal)

    @property
    def n_dimensions(self) -> int:
        """Of an item: its factors, and its bias if items have any."""
        return int(self.index.d)

    @property
    def n_lists(self) -> int:
        """The number of cells."""
        return int(self.index.nlist)

    def search(
        self,
        factors: Float32,
        n: int,
        barred: NDArray[np.integer[Any]],
        mask: NDArray[np.bool_] | None = None,
        widened: float = 1.0,
    ) -> Found:
        """Find the n best of the items in the cells nearest to a user.

        Args:
            factors: Float32 (k,), the user's.
            n: At least 1.
            barred: Rows not to be found, of this index or behind it; they may repeat.
            mask: Bool (m,) with m at least `n_items`: the only items that may be found; None for all.
            widened: How many times as many cells to search.
        """
        library: Any = faiss()
        query = np.ones((1, self.n_dimensions), dtype=np.float32)
        query[0, : factors.size] = factors
        selector = None
        if mask is not None:
            allowed = mask[: self.n_items].copy()
            allowed[barred[barred < self.n_items]] = False
            # The bits stay referenced until the search is over: the selector does not copy them.
            bits = np.packbits(allowed, bitorder="little")
            selector = library.IDSelectorBitmap(bits)
        elif barred.size:
            selector = library.IDSelectorNot(library.IDSelectorBatch(barred.astype(np.int64)))
        n_probe = min(self.n_lists, math.ceil(self.n_probe * widened))
        parameters = library.SearchParametersIVF(nprobe=n_probe, sel=selector)
        scores, rows = self.index.search(query, min(n, self.n_items), params=parameters)
        is_found = rows[0] >= 0
        return Found(rows[0][is_found], scores[0][is_found])

    def write(self, path: Path) -> None:
        """Write the index to a new file, which is not synced yet."""
        if self.source is None:
            library: Any = faiss()
            library.write_index(self.index, str(path))
        else:
            # The library writes a mapped index as a reference to its file.
            shutil.copyfile(self.source, path)
