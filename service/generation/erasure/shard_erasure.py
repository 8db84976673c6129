"""Finds users in the file of a shard, and writes the file again without some of them.

Invariants: the search reads the ids of users alone, each once. A file that is written again holds neither the lists of
the users left out, nor their ids in a dictionary, nor items that only they had. If it has one row group, it is the file
that a generation without these users makes, byte for byte, by the same release of pyarrow.
"""

import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

from service.generation.files.shard_format import CODED, SCHEMAS, Layout, shard_writer, write_group

_USER: Final = "user_id"
# What reading a damaged file raises. Their texts may have an id.
UNREADABLE: Final = (OSError, ValueError, pa.ArrowException)


class LeftOver(NamedTuple):
    """What a file holds without some users.

    Attributes:
        users_sha256: That of the ids of its users in their order, each with a line feed.
        n_rows: The items of all lists.
        n_without: How many of the users left out had an empty list.
    """

    users_sha256: str
    n_rows: int
    n_without: int


def users_named(path: Path) -> list[str]:
    """Return the users whom a file names, in their order, each once; those without items, too.

    Raises:
        Exception: One of `UNREADABLE`; the file cannot be read, or is no file of lists.
    """
    names: dict[str, None] = {}
    with parquet.ParquetFile(path, read_dictionary=[_USER]) as file:
        if _USER not in file.schema_arrow.names:
            raise ValueError(f"there is no column {_USER}")
        for group in range(file.num_row_groups):
            for chunk in file.read_row_group(group, columns=[_USER], use_threads=False)[_USER].chunks:
                names.update(dict.fromkeys(chunk.dictionary.to_pylist()))
    return list(names)


def write_without(source: Path, target: Path, layout: Layout, users: Collection[str]) -> LeftOver:
    """Write and sync a new file with the lists of a shard but those of some users; the caller syncs its directory.

    Args:
        source: The file of the shard.
        target: The new file.
        layout: Of both.
        users: Who is left out, as a set.

    Raises:
        Exception: One of `UNREADABLE`; there is no new file then.
    """
    digest = hashlib.sha256()
    n_rows = n_without = 0
    coded = list(CODED) if layout == "rows" else []
    with parquet.ParquetFile(source, read_dictionary=coded) as file, target.open("xb") as sink:
        try:
            with shard_writer(sink, layout) as writer:
                for number in range(file.num_row_groups):
                    table = file.read_row_group(number, use_threads=False)
                    group = _rows_without(table, users) if layout == "rows" else _lists_without(table, users)
                    digest.update("".join(f"{user_id}\n" for user_id in group.names).encode())
                    n_rows, n_without = n_rows + group.n_rows, n_without + group.n_without
                    write_group(writer, group.table)
            sink.flush()
            os.fsync(sink.fileno())
        except BaseException:
            # A part of a file must not fill the disk until the next attempt.
            target.unlink(missing_ok=True)
            raise
    return LeftOver(digest.hexdigest(), n_rows, n_without)


class _Group(NamedTuple):
    """A row group without some users: its table, its users, its items, and how many left out had none."""

    table: pa.Table
    names: list[str]
    n_rows: int
    n_without: int


def _rows_without(table: pa.Table, users: Collection[str]) -> _Group:
    names, codes = _decoded(table[_USER])
    stays = np.array([name not in users for name in names], bool)
    n_items = np.bincount(codes, minlength=len(names))
    is_kept = stays[codes]
    kept = table.filter(pa.array(is_kept))
    items, item_codes = _decoded(kept["item_id"])
    is_named = np.zeros(len(items), bool)
    is_named[item_codes] = True
    columns = [
        _coded(names, codes[is_kept], stays),
        kept["rank"],
        _coded(items, item_codes, is_named),
        kept["score"],
        kept["source"].unify_dictionaries(),
    ]
    left = [name for name, is_left in zip(names, stays.tolist(), strict=True) if is_left]
    n_without = int(np.count_nonzero(~stays & (n_items == 0)))
    return _Group(pa.Table.from_arrays(columns, schema=SCHEMAS["rows"]), left, kept.num_rows, n_without)


def _lists_without(table: pa.Table, users: Collection[str]) -> _Group:
    names = table[_USER].to_pylist()
    stays = np.array([name not in users for name in names], bool)
    lengths = pc.list_value_length(table["items"]).to_numpy()
    kept = table.filter(pa.array(stays)).cast(SCHEMAS["lists"])
    n_without = int(np.count_nonzero(~stays & (lengths == 0)))
    return _Group(kept, kept[_USER].to_pylist(), int(lengths[stays].sum()), n_without)


def _decoded(column: Any) -> tuple[list[str], NDArray[np.int32]]:
    """Return the texts of a column of a row group, each once, and for each row which one it has, int32."""
    chunks = column.unify_dictionaries().chunks
    if not chunks:
        return [], np.empty(0, np.int32)
    return chunks[0].dictionary.to_pylist(), np.concatenate([chunk.indices.to_numpy() for chunk in chunks])


def _coded(texts: list[str], codes: NDArray[np.int32], is_kept: NDArray[np.bool_]) -> Any:
    """Return a column of codes and of the texts that are kept, in their order; undoes `_decoded`."""
    new_codes = np.cumsum(is_kept, dtype=np.int32) - np.int32(1)
    kept = [text for text, stays in zip(texts, is_kept.tolist(), strict=True) if stays]
    return pa.DictionaryArray.from_arrays(pa.array(new_codes[codes]), pa.array(kept, pa.string()))
