"""Maps between the ids of callers and the rows of arrays.

Invariant: `row_of[id_of[row]] == row` for every row, and ids are unique. On disk a vocabulary is two arrays, the
concatenated UTF-8 bytes of the ids and the n + 1 offsets between them; in memory it is a hash map and a list.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused

# The limits of ids in requests.
_MAX_CHARACTERS: Final = 128
_MAX_BYTES: Final = 4 * _MAX_CHARACTERS
# Bytes checked at a time, which bounds the memory for the check.
_PIECE_BYTES: Final = 1 << 22


class Vocabulary:
    """An immutable two-way map between ids and rows.

    Args:
        ids: Unique strings, in row order.

    Raises:
        ModelRefused: An id occurs twice.
    """

    __slots__ = ("id_of", "row_of")

    def __init__(self, ids: Iterable[str]) -> None:
        self.id_of: Final[list[str]] = list(ids)
        self.row_of: Final[dict[str, int]] = {id_: row for row, id_ in enumerate(self.id_of)}
        if len(self.row_of) != len(self.id_of):
            raise ModelRefused(f"A vocabulary of {len(self.id_of)} ids holds only {len(self.row_of)} different ones.")

    def __len__(self) -> int:
        return len(self.id_of)

    def to_arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the ids' bytes, uint8 (total_bytes,), and their offsets, int64 (n + 1,)."""
        encoded = [id_.encode() for id_ in self.id_of]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(item) for item in encoded], out=offsets[1:])
        return np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets

    @classmethod
    def from_arrays(cls, data: NDArray[np.uint8], offsets: NDArray[np.int64], name: str = "vocabulary") -> "Vocabulary":
        """Undo `to_arrays`.

        Args:
            data: Uint8 (total_bytes,), the bytes of the ids.
            offsets: Int64 (n + 1,).
            name: Its name in error messages.

        Raises:
            ModelRefused: The offsets do not fit the bytes, or an id is not UTF-8, is empty or too long, holds a control
                character, or occurs twice.
        """
        if not offsets.size or offsets[0] != 0 or offsets[-1] != data.size or bool(np.any(offsets[1:] < offsets[:-1])):
            raise ModelRefused(f"{name}: the offsets do not fit the bytes.")
        lengths = np.diff(offsets)
        if lengths.size and not (lengths.min() >= 1 and lengths.max() <= _MAX_BYTES):
            raise ModelRefused(f"{name}: an id is empty or has more than {_MAX_CHARACTERS} characters.")
        if _holds_controls(data):
            raise ModelRefused(f"{name}: an id holds a control character.")
        blob = data.tobytes()
        try:
            ids = [blob[a:b].decode() for a, b in pairwise(offsets.tolist())]
        except UnicodeDecodeError as error:
            raise ModelRefused(f"{name}: an id is not UTF-8: {error}.") from error
        if any(len(ids[row]) > _MAX_CHARACTERS for row in np.flatnonzero(lengths > _MAX_CHARACTERS).tolist()):
            raise ModelRefused(f"{name}: an id is empty or has more than {_MAX_CHARACTERS} characters.")
        try:
            return cls(ids)
        except ModelRefused as error:
            raise ModelRefused(f"{name}: {error}") from None


def _holds_controls(data: NDArray[np.uint8]) -> bool:
    """Whether UTF-8 bytes hold a character of the category Cc: U+0000 to U+001F and U+007F to U+009F."""
    for start in range(0, data.size, _PIECE_BYTES):
        # One byte more, because U+0080 to U+009F are two bytes: 0xC2 and the code point.
        piece = data[start : start + _PIECE_BYTES + 1]
        pairs = (piece[:-1] == 0xC2) & (piece[1:] >= 0x80) & (piece[1:] <= 0x9F)
        if bool(((piece < 0x20) | (piece == 0x7F)).any()) or bool(pairs.any()):
            return True
    return False
