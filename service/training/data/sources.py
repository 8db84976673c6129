"""Which files a path stands for, in which format, and their fingerprint.

Invariant: the files of a directory are read in order of their paths, and the fingerprint is the sha256 of their bytes
in that order; of a single file, packed or not, it is the file's own.
"""

import hashlib
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote

from service.errors import DataError
from service.training.data import demo
from service.training.data.data_request import STDIN, ReadOptions
from service.training.data.field_values import printable
from service.training.data.files import piped_input, zip_archive
from service.training.data.files.text_file import COMPRESSED_SUFFIXES, detect_compression, open_text
from service.training.data.formats.blocks import BYTE_ORDER_MARK

Format: TypeAlias = Literal["table", "jsonl", "parquet"]

# 100K, 1M and 10M, and everything since.
MOVIELENS_FILES: Final = ("u.data", "ratings.dat", "ratings.csv")
_FORMS: Final = (
    "give a CSV, TSV, JSONL or Parquet file, a MovieLens directory, - for standard input, archive[:PATH] or "
    f"{demo.FORM}"
)
_SUFFIXES: Final[dict[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".csv": "table",
    ".tsv": "table",
}
_PLURAL: Final[dict[Format, str]] = {"table": "CSV or TSV", "jsonl": "JSONL", "parquet": "Parquet"}
_SPREADSHEETS: Final = (".xlsx", ".xls", ".ods")
_PARQUET: Final = b"PAR1"
_JSON_OBJECT: Final = re.compile(rb"\s*\{\s*[\"}]")
_NEVER_JSON: Final = ("u.data", "ratings.dat")
_HEAD_BYTES: Final = 4096
# What Hive writes for a null.
_NULL_PARTITION: Final = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class DataFile:
    """One file of a set.

    Attributes:
        path: Where it is.
        name: What messages call it.
        partitions: Columns that every row of it has the same value of, as (name, value), by Hive's directories.
    """

    path: Path
    name: str
    partitions: tuple[tuple[str, str], ...] = ()

    @property
    def short_name(self) -> str:
        """The name without directories, as it may be printed."""
        return printable(Path(self.name).name)


@dataclass(frozen=True)
class Source:
    """The files of a set.

    Attributes:
        files: At least one, in the order in which they are read.
        hashed: The files whose bytes are the fingerprint; those of `files`, or what they were unpacked from.
        notes: What the reader should know about the choice, one sentence each.
    """

    files: tuple[DataFile, ...]
    hashed: tuple[Path, ...]
    notes: tuple[str, ...] = ()


@contextmanager
def open_source(path_text: str) -> Iterator[Source]:
    """Find the files of a path; what a zip archive holds is there until the block ends.

    Args:
        path_text: A file, a MovieLens directory, a directory of part files, a zip archive of any of these, or "-".

    Raises:
        DataError: There is nothing there, or nothing that can be read.
    """
    path, name = _located(path_text)
    if path.is_dir():
        yield _in_directory(path, name)
    elif zipfile.is_zipfile(path):
        with zip_archive.unpacked(path, name) as folder:
            yield _unpacked(folder, path, name)
    else:
        yield Source((DataFile(path, name),), (path,))


def fingerprint(path_text: str) -> str:
    """Return "sha256:…" over the bytes of the files of a path, without unpacking anything.

    Raises:
        DataError: There is nothing there, or it cannot be read.
    """
    path, name = _located(path_text)
    return sha256_of(_in_directory(path, name).hashed if path.is_dir() else (path,))


def sha256_of(paths: tuple[Path, ...]) -> str:
    """Return "sha256:…" over the bytes of files, in order.

    Raises:
        DataError: One cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    return f"sha256:{digest.hexdigest()}"


def detect_format(file: DataFile, options: ReadOptions) -> Format:
    """Tell a file's format by how it begins, else by its name.

    Raises:
        DataError: It is packed and broken, or a compressed Parquet file.
        OSError: It cannot be read.
    """
    with open_text(file.path, options.encoding) as text:
        head = text.read(_HEAD_BYTES)
    if head.startswith(_PARQUET):
        with file.path.open("rb") as raw:
            packed = detect_compression(raw.read(_HEAD_BYTES))
        if packed is not None:
            raise DataError(f"{file.name} is a Parquet file that is compressed with {packed}: decompress it")
        return "parquet"
    # A GUID in braces is an id of a table.
    if _JSON_OBJECT.match(head.removeprefix(BYTE_ORDER_MARK)) and not file.short_name.startswith(_NEVER_JSON):
        return "jsonl"
    return _suffix_format(file.path) or "table"


def _located(path_text: str) -> tuple[Path, str]:
    """Return the path that a text stands for, and what messages call it."""
    if path_text == STDIN:
        return piped_input.copy_of_standard_input(), "standard input"
    if not path_text.strip():
        raise DataError(f"no data is named: {_FORMS}")
    path = Path(path_text).expanduser()
    try:
        if not path.exists():
            raise DataError(f"there is no {path_text!r}: {_FORMS}")
        if path.is_fifo():
            return piped_input.copy_of_pipe(path), f"pipe {path.name}"
        if not (path.is_dir() or path.is_file()):
            raise DataError(f"{path} is neither a file, a directory nor a pipe")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL within the name
        raise DataError(f"{path_text!r} cannot be a path: {error}") from error
    if path.suffix.lower() in _SPREADSHEETS:
        raise DataError(f"{path} is a spreadsheet, which is not supported: save it as CSV")
    return path, str(path)


def _suffix_format(path: Path) -> Format | None:
    """Return the format that a name promises; the suffix of a compression does not count."""
    suffixes = path.suffixes
    if suffixes and suffixes[-1].lower() in COMPRESSED_SUFFIXES:
        suffixes = suffixes[:-1]
    return _SUFFIXES.get(suffixes[-1].lower()) if suffixes else None


def _unpacked(folder: Path, archive: Path, name: str) -> Source:
    """Return what a zip archive holds, which was unpacked into a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    if len(files) == 1:
        return Source((DataFile(files[0], f"{name}/{files[0].name}"),), (archive,))
    # An archive of a directory holds that directory.
    inside = list(folder.iterdir())
    while len(inside) == 1 and inside[0].is_dir():
        folder, inside = inside[0], list(inside[0].iterdir())
    source = _in_directory(folder, name)
    return Source(source.files, (archive,), source.notes)


def _in_directory(folder: Path, name: str) -> Source:
    try:
        return _movielens(folder, name) or _parts(folder, name)
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}") from error


def _movielens(folder: Path, name: str) -> Source | None:
    names = (f"{plain}{suffix}" for plain in MOVIELENS_FILES for suffix in ("", *COMPRESSED_SUFFIXES))
    ratings = [each for each in names if (folder / each).is_file()]
    if not ratings:
        return None
    first, *others = ratings
    notes = (f"{printable(name)} holds {' and '.join(others)} too; {first} alone was read.",) if others else ()
    return Source((DataFile(folder / first, str(Path(name) / first)),), (folder / first,), notes)


def _parts(folder: Path, name: str) -> Source:
    files = sorted(_part_files(folder))
    if not files:
        within = any(path.is_dir() for path in folder.iterdir())
        raise DataError(
            f"{name} holds none of {', '.join(MOVIELENS_FILES)} and no CSV, TSV, JSONL or Parquet files, so it is no "
            "MovieLens directory and no set of part files"
            + ("; directories within it count only if they are called NAME=VALUE" if within else "")
        )
    formats = {format_ for path in files if (format_ := _suffix_format(path)) is not None}
    if len(formats) > 1:
        both = " and ".join(sorted(_PLURAL[format_] for format_ in formats))
        raise DataError(f"{name} holds both {both} files: give one of them, or a directory of one kind")
    parts = tuple(
        DataFile(path, str(Path(name) / path.relative_to(folder)), _partitions(path.relative_to(folder)))
        for path in files
    )
    notes = (f"{len(parts)} files of {printable(name)} were read.",) if len(parts) > 1 else ()
    return Source(parts, tuple(files), notes)


def _part_files(folder: Path) -> Iterator[Path]:
    """Yield the part files of a directory, and those of directories that Hive would call partitions."""
    for path in folder.iterdir():
        # What writes a file per worker leaves notes of its own beside them, with such names.
        if path.name.startswith(("_", ".")):
            continue
        if path.is_file() and _suffix_format(path) is not None:
            yield path
        elif "=" in path.name and path.is_dir():
            yield from _part_files(path)


def _partitions(path: Path) -> tuple[tuple[str, str], ...]:
    """Return the names and values of the directories of a part file."""
    pairs = (unquote(part).partition("=") for part in path.parts[:-1])
    return tuple((name, "" if value == _NULL_PARTITION else value) for name, _, value in pairs)
