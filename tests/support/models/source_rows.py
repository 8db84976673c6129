"""Reads one file with one reader, so that a test chooses how much is parsed at once."""

from collections.abc import Callable
from pathlib import Path

from service.training.data.data_request import DEFAULT_OPTIONS
from service.training.data.row_collector import RowCollector, SourceRows
from service.training.data.sources import DataFile


def read_rows(reader: Callable[..., None], path: str | Path, **sizes: int) -> SourceRows:
    """Return the rows that a reader finds, and check that it passed on every raw byte.

    Args:
        reader: Such as `read_table`.
        path: The file.
        sizes: The reader's own, such as `block_bytes`.
    """
    file, collector, chunks = DataFile(Path(path), str(path)), RowCollector(), list[bytes]()
    reader(file, DEFAULT_OPTIONS, collector, chunks.append, **sizes)
    assert b"".join(chunks) == file.path.read_bytes()
    return collector.rows()


def row_triples(rows: SourceRows) -> list[tuple[str, str, float]]:
    """Return user id, item id and rating of every good row."""
    users = [rows.user_ids[code] for code in rows.user_codes]
    items = [rows.item_ids[code] for code in rows.item_codes]
    return list(zip(users, items, rows.ratings.tolist(), strict=True))
