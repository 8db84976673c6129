"""A file of named columns, written once and memory-mapped by its readers.

    magic | column, padded to 8 bytes | ... | footer (JSON) | footer length (u32) | CRC-32 of the footer (u32) | magic

The footer has a format version, the caller's facts, and of each column its type, count, offset and CRC-32. Numbers are
little-endian. Invariant: a file has its name only when it is complete and synced, and it never changes.
"""

import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from telemetry.errors import StateError

Column: TypeAlias = npt.NDArray[Any]

_MAGIC: Final = b"RCLSTATE"
_FORMAT: Final = 1
_TAIL: Final = struct.Struct("<II8s")
_ALIGNMENT: Final = 8


def write_columns(path: Path, columns: Iterable[tuple[str, Iterable[Column]]], facts: Mapping[str, Any]) -> int:
    """Write a file aside, sync it and rename it; its directory is the caller's to sync.

    Args:
        columns: Each as pieces of one type, at least one, which are made one after the other: only one needs to be in
            memory.
        facts: JSON.

    Returns:
        Its size in bytes.

    Raises:
        OSError: The disk refuses.
    """
    staged = path.with_name(f".{path.name}.staged")
    table: dict[str, Any] = {}
    try:
        with staged.open("wb", buffering=0) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(_MAGIC)
            for name, pieces in columns:
                offset, kind, count, checksum = file.tell(), "", 0, 0
                for piece in pieces:
                    data = _bytes_of(piece)
                    kind, count, checksum = piece.dtype.str, count + len(piece), zlib.crc32(data, checksum)
                    _write_all(file.fileno(), data)
                table[name] = [kind, count, offset, checksum]
                _write_all(file.fileno(), memoryview(bytes(-file.tell() % _ALIGNMENT)))
            footer = orjson.dumps({"format": _FORMAT, "columns": table, "facts": facts})
            _write_all(file.fileno(), memoryview(footer + _TAIL.pack(len(footer), zlib.crc32(footer), _MAGIC)))
            os.fsync(file.fileno())
            size_bytes = file.tell()
        staged.rename(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    return size_bytes


def _bytes_of(column: Column) -> memoryview:
    return np.ascontiguousarray(column).view(np.uint8).data


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class ColumnFile:
    """An open file of columns.

    Attributes:
        facts: What the writer stored beside them.

    Raises:
        StateError: The file is damaged or of another version.
        FileNotFoundError: There is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise StateError(f"{path} cannot be read: {error}.") from None
        footer = self._footer()
        self._table: Mapping[str, tuple[str, int, int, int]] = footer["columns"]
        self.facts: Mapping[str, Any] = footer["facts"]

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return len(self._map)

    def column(self, name: str) -> Column:
        """Return a column as a view of the mapped file."""
        kind, count, offset, _ = self._table[name]
        return np.frombuffer(self._map, np.dtype(kind), count, offset)

    def verify(self) -> None:
        """Compare all columns with their checksums; raises StateError."""
        for name, column in self._columns():
            if zlib.crc32(_bytes_of(column)) != self._table[name][3]:
                raise StateError(f"{self._path} is damaged: its column {name} does not have its checksum.")

    def _columns(self) -> Iterator[tuple[str, Column]]:
        return ((name, self.column(name)) for name in self._table)

    def _footer(self) -> dict[str, Any]:
        data = self._map
        damage = StateError(f"{self._path} is damaged: it is no complete file of columns.")
        if len(data) < len(_MAGIC) + _TAIL.size or data[: len(_MAGIC)] != _MAGIC:
            raise damage
        length, checksum, magic = _TAIL.unpack(data[-_TAIL.size :])
        footer = data[-_TAIL.size - length : -_TAIL.size]
        if magic != _MAGIC or length > len(data) - _TAIL.size or zlib.crc32(footer) != checksum:
            raise damage
        fields: dict[str, Any] = orjson.loads(footer)
        if fields["format"] != _FORMAT:
            raise StateError(f"{self._path} is of format {fields['format']}. This version reads {_FORMAT}.")
        return fields
