"""The format of a shard's Parquet file: its two layouts, and how both are written.

Two layouts, with the same lists:

    rows    one row for each item of a list: user_id, rank from 1, item_id, score, source
    lists   one row for each user: user_id, and items, a list of {item_id, score, source}, best first

A user without a single item has no row in the first, where only the dictionary of the row group names the user, and an
empty list in the second.
"""

from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import pyarrow as pa
from pyarrow import parquet

Layout: TypeAlias = Literal["rows", "lists"]
LAYOUTS: Final[tuple[Layout, ...]] = get_args(Layout)
# The columns of the first layout that are written as codes and texts apart.
CODED: Final = ("user_id", "item_id", "source")
_LEVEL: Final = 1
# Of a row group: all ids of items that it names fit, so that each is written once.
_DICTIONARY_BYTES: Final = 1 << 30
# With `store_schema` off readers find plain strings.
_CODED: Final = pa.dictionary(pa.int32(), pa.string())
ITEM: Final = pa.struct([("item_id", pa.string()), ("score", pa.float64()), ("source", pa.string())])
SCHEMAS: Final = {
    "rows": pa.schema(
        [
            pa.field("user_id", _CODED, nullable=False),
            pa.field("rank", pa.int32(), nullable=False),
            pa.field("item_id", _CODED, nullable=False),
            pa.field("score", pa.float64(), nullable=False),
            pa.field("source", _CODED, nullable=False),
        ]
    ),
    "lists": pa.schema(
        [
            pa.field("user_id", pa.string(), nullable=False),
            pa.field("items", pa.list_(pa.field("element", ITEM, nullable=False)), nullable=False),
        ]
    ),
}


def shard_writer(sink: Path | pa.NativeFile, layout: Layout) -> Any:
    """Return the writer of a new file, a `ParquetWriter` that the caller closes."""
    return parquet.ParquetWriter(
        sink,
        SCHEMAS[layout],
        compression="zstd",
        compression_level=_LEVEL,
        use_dictionary=list(CODED) if layout == "rows" else True,
        dictionary_pagesize_limit=_DICTIONARY_BYTES,
        store_schema=False,
    )


def write_group(writer: Any, table: pa.Table) -> None:
    """Write a table as one row group."""
    writer.write_table(table, row_group_size=max(1, table.num_rows))
