"""Ids and rows: the caller's strings on one side, our array indices on the other.

Invariant: `row_of[id_of[row]] == row` for every row, and ids are unique. On disk a vocabulary is two arrays, the ids'
UTF-8 bytes end to end and the n + 1 offsets between them; in memory a hash map and a list, both built at load.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused


class Vocabulary:
    """An immutable two-way map between ids and rows.

    Args:
        ids: unique strings, in row order.

    Raises:
        ModelRefused: an id occurs twice.
    """

    __slots__ = ("id_of", "row_of")

    def __init__(self, ids: Iterable[str]) -> None:
        self.id_of: Final[list[str]] = list(ids)
        self.row_of: Final[dict[str, int]] = {id_: row for row, id_ in enumerate(self.id_of)}
        if len(self.row_of) != len(self.id_of):
            raise ModelRefused(f"a vocabulary of {len(self.id_of)} ids holds only {len(self.row_of)} different ones")

    def __len__(self) -> int:
        return len(self.id_of)

    def to_arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the ids' bytes, uint8 (total_bytes,), and their offsets, int64 (n + 1,)."""
        encoded = [id_.encode() for id_ in self.id_of]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(item) for item in encoded], out=offsets[1:])
        return np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets

    @classmethod
    def from_arrays(cls, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Vocabulary:
        """Undo `to_arrays`.

        Raises:
            ModelRefused: the offsets do not fit the bytes, an id is not UTF-8, or one occurs twice.
        """
        blob = data.tobytes()
        bounds = offsets.tolist()
        if not bounds or bounds[0] != 0 or bounds[-1] != len(blob) or bool(np.any(np.diff(offsets) < 0)):
            raise ModelRefused("a vocabulary's offsets do not fit its bytes")
        try:
            return cls([blob[a:b].decode() for a, b in pairwise(bounds)])
        except UnicodeDecodeError as error:
            raise ModelRefused(f"a vocabulary holds an id that is not UTF-8: {error}") from error
