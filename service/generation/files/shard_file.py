"""Makes the Parquet file of one shard: the lists of its users, in their order.

Invariant: the bytes depend on the lists, the layout and the release of pyarrow alone, so that a shard that is made
again is the same file.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.generation.files.shard_format import ITEM, SCHEMAS, Layout, shard_writer, write_group
from service.generation.lists.shard_lists import ShardLists
from service.models.vocabulary import Vocabulary

SOURCES: Final = ("popular", "personal")
# Digits behind the point of a score, as in answers of the API.
_DIGITS: Final = 6
# Rows of the first layout in a row group, which readers read apart from the others; no user is in two of them.
_GROUP_ROWS: Final = 1 << 20


class ShardFile(NamedTuple):
    """A file as bytes.

    Attributes:
        content: Uint8 (n_bytes,).
        n_users: The users of the shard.
        n_rows: The items of all their lists.
        n_without: The users without a single item.
    """

    content: NDArray[np.uint8]
    n_users: int
    n_rows: int
    n_without: int


def shard_file(user_ids: Sequence[str], lists: ShardLists, items: Vocabulary, layout: Layout) -> ShardFile:
    """Return the file of a shard.

    Args:
        user_ids: The b users.
        lists: Their lists.
        items: The items of the rows.
        layout: One of `LAYOUTS`.
    """
    sink = pa.BufferOutputStream()
    with shard_writer(sink, layout) as writer:
        for group in _groups(len(user_ids), lists.rows.shape[1]):
            make = _rows if layout == "rows" else _lists
            table = make(user_ids[group], lists.part(group), items)
            write_group(writer, table)
    counts = lists.counts
    return ShardFile(
        np.frombuffer(sink.getvalue(), np.uint8),
        len(user_ids),
        int(counts.sum()),
        int(np.count_nonzero(counts == 0)),
    )


def _groups(n_users: int, n: int) -> Iterator[slice]:
    """Yield the users of each row group; at least one, which may be empty."""
    size = max(1, _GROUP_ROWS // max(1, n))
    for start in range(0, max(1, n_users), size):
        yield slice(start, min(start + size, n_users))


def _columns(lists: ShardLists, items: Vocabulary) -> tuple[pa.Array, pa.Array, pa.Array, NDArray[np.bool_]]:
    """Return item_id, score and source of all listed items, and which entries of the lists they are: bool (b, n)."""
    is_listed = np.arange(lists.rows.shape[1]) < lists.counts[:, np.newaxis]
    rows = lists.rows[is_listed]
    # The ids that are named here, each once.
    is_named = np.zeros(len(items), bool)
    is_named[rows] = True
    code_of_row = np.cumsum(is_named, dtype=np.int32) - np.int32(1)
    ids = pa.array([items.id_of[row] for row in np.flatnonzero(is_named).tolist()], pa.string())
    item_id = pa.DictionaryArray.from_arrays(pa.array(code_of_row[rows]), ids)
    # Without the sign of a rounded 0.
    score = pa.array(lists.scores[is_listed].round(_DIGITS) + 0.0)
    codes = lists.is_personal[is_listed].astype(np.int32)
    return item_id, score, pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(SOURCES)), is_listed


def _rows(user_ids: Sequence[str], lists: ShardLists, items: Vocabulary) -> pa.Table:
    item_id, score, source, is_listed = _columns(lists, items)
    users, places = np.nonzero(is_listed)
    user_id = pa.DictionaryArray.from_arrays(pa.array(users.astype(np.int32)), pa.array(user_ids, pa.string()))
    rank = pa.array((places + 1).astype(np.int32))
    return pa.Table.from_arrays([user_id, rank, item_id, score, source], schema=SCHEMAS["rows"])


def _lists(user_ids: Sequence[str], lists: ShardLists, items: Vocabulary) -> pa.Table:
    item_id, score, source, _ = _columns(lists, items)
    offsets = np.zeros(len(user_ids) + 1, np.int32)
    np.cumsum(lists.counts, out=offsets[1:])
    fields = [item_id.cast(pa.string()), score, source.cast(pa.string())]
    of_items = pa.StructArray.from_arrays(fields, fields=list(ITEM))
    nested = pa.ListArray.from_arrays(pa.array(offsets), of_items, type=SCHEMAS["lists"].field("items").type)
    return pa.Table.from_arrays([pa.array(user_ids, pa.string()), nested], schema=SCHEMAS["lists"])
