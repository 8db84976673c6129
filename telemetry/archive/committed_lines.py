"""The committed lines of one file of the archive, by its path and length."""

from collections.abc import Iterator
from pathlib import Path

from telemetry.archive.parquet_file import SUFFIX, read_lines


def committed_lines(path: Path, size_bytes: int) -> Iterator[bytes]:
    """Read a JSONL file up to its committed length, or a whole Parquet file.

    Yields:
        One line, line feed included; a damaged file may end early or with half a line.

    Raises:
        OSError: A JSONL file cannot be read.
        ArchiveError: A Parquet file cannot be read, or DuckDB is missing.
    """
    if path.suffix == SUFFIX:
        yield from read_lines(path)
        return
    with path.open("rb") as file:
        while size_bytes > 0 and (line := file.readline()):
            size_bytes -= len(line)
            yield line
