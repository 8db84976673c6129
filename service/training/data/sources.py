"""Which files a path stands for, in which format, and their fingerprint.

Invariant: the files of a directory are read in order of their names, and the fingerprint is the sha256 of their bytes
in that order; of a single file it is the file's own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from service.errors import DataError
from service.training.data import demo
from service.training.data.blocks import BYTE_ORDER_MARK
from service.training.data.values import shown

Format: TypeAlias = Literal["table", "jsonl", "parquet"]

# 100K, 1M and 10M, and everything since.
MOVIELENS_FILES: Final = ("u.data", "ratings.dat", "ratings.csv")
_FORMS: Final = f"give a CSV, TSV, JSONL or Parquet file, a MovieLens directory, archive[:PATH] or {demo.FORM}"
_SUFFIXES: Final[dict[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
_UNSUPPORTED: Final = {
    ".xlsx": "a spreadsheet",
    ".gz": "compressed",
    ".zip": "compressed",
    ".bz2": "compressed",
    ".xz": "compressed",
    ".zst": "compressed",
}
_PARQUET: Final = b"PAR1"
_HEAD_BYTES: Final = 4096


@dataclass(frozen=True)
class Source:
    """The files of a set.

    Attributes:
        files: at least one, in the order in which they are read.
        notes: what the reader should know about the choice, one sentence each.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def find(path_text: str) -> Source:
    """Find the files of a path.

    Args:
        path_text: a file, a MovieLens directory, or a directory of part files in JSONL or Parquet.

    Raises:
        DataError: there is nothing there, or nothing that can be read.
    """
    if not path_text.strip():
        raise DataError(f"no data is named: {_FORMS}")
    path = Path(path_text).expanduser()
    try:
        if path.is_dir():
            return _in_directory(path)
        if not path.exists():
            raise DataError(f"there is no {path_text!r}: {_FORMS}")
        if not path.is_file():
            raise DataError(f"{path} is neither a file nor a directory")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL within the name
        raise DataError(f"{path_text!r} cannot be a path: {error}") from error
    what = _UNSUPPORTED.get(path.suffix.lower())
    if what is not None:
        raise DataError(f"{path} is {what}, which is not supported: {_FORMS}")
    return Source((path,))


def format_of(path: Path) -> Format:
    """Tell a file's format by how it begins, else by its name.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_PARQUET):
        return "parquet"
    if head.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"{"):
        return "jsonl"
    return _SUFFIXES.get(path.suffix.lower(), "table")


def fingerprint(source: Source) -> str:
    """Return "sha256:…" over the bytes of the files.

    Raises:
        DataError: one cannot be read.
    """
    digest = hashlib.sha256()
    for path in source.files:
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    return f"sha256:{digest.hexdigest()}"


def _in_directory(folder: Path) -> Source:
    ratings = [name for name in MOVIELENS_FILES if (folder / name).is_file()]
    if ratings:
        first, *others = ratings
        notes = (f"{folder} holds {' and '.join(others)} too; {first} alone was read.",) if others else ()
        return Source((folder / first,), notes)
    # What writes a file per worker leaves notes of its own beside them, with such names.
    parts = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(("_", ".")) and path.is_file()
    )
    if not parts:
        raise DataError(
            f"{folder} holds none of {', '.join(MOVIELENS_FILES)} and no JSONL or Parquet files, so it is no MovieLens "
            "directory and no set of part files"
        )
    formats = {_SUFFIXES[path.suffix.lower()] for path in parts}
    if len(formats) > 1:
        raise DataError(f"{folder} holds both JSONL and Parquet files: give one of them, or a directory of one kind")
    return Source(tuple(parts), (f"{len(parts)} files of {shown(str(folder))} were read.",) if len(parts) > 1 else ())
