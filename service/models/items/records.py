"""The item catalogue of a published model: titles and attributes as the training data had them.

Invariant: one record a row of the model's items. On disk two arrays, the concatenated JSON of the records and the n + 1
offsets between them; an item without a record has no bytes. The arrays are mapped and a record is decoded when it is
asked for, so that a replica holds no copy.
"""

from collections.abc import Iterable

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import ModelRefused
from service.models.items.record import NO_RECORD, ItemRecord, from_json


class ItemRecords:
    """The records of a model's items.

    Args:
        content: Uint8 (total_bytes,), the JSON of the records.
        offsets: Int64 (n_items + 1,).

    Raises:
        ModelRefused: The offsets do not fit the bytes.
    """

    __slots__ = ("content", "offsets")

    def __init__(self, content: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        if (
            not offsets.size
            or offsets[0] != 0
            or offsets[-1] != content.size
            or bool(np.any(offsets[1:] < offsets[:-1]))
        ):
            raise ModelRefused("The offsets of the item catalogue do not fit its bytes.")
        self.content = content
        self.offsets = offsets

    def __len__(self) -> int:
        return self.offsets.size - 1

    def record(self, row: int) -> ItemRecord:
        """Return the record of an item; an empty one if the training data had none.

        Raises:
            ModelRefused: The record is not as this version writes it.
        """
        raw = self.content[self.offsets[row] : self.offsets[row + 1]]
        if not raw.size:
            return NO_RECORD
        try:
            return from_json(orjson.loads(raw.data))
        except orjson.JSONDecodeError as error:
            raise ModelRefused(f"The item catalogue has a record that is not JSON: {error}.") from None

    @classmethod
    def of(cls, records: Iterable[ItemRecord]) -> "ItemRecords":
        """Return the arrays of records, in row order; only titles and attributes are kept."""
        encoded = [_encoded(record) for record in records]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(entry) for entry in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)


def _encoded(record: ItemRecord) -> bytes:
    fields: dict[str, object] = {}
    if record.title is not None:
        fields["title"] = record.title
    if record.attributes:
        fields["attributes"] = dict(record.attributes)
    return orjson.dumps(fields) if fields else b""
