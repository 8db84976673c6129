"""Finds the files of a path, their formats and their fingerprint.

Invariant: the files of a directory are read in order of their paths, and the fingerprint is the sha256 of their bytes
in that order; of a single file, compressed or not, it is the file's own.
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
from service.training.data.files.text_file import BYTE_ORDER_MARK, COMPRESSED_SUFFIXES, detect_compression, open_text

Format: TypeAlias = Literal["table", "jsonl", "parquet"]
Role: TypeAlias = Literal["user", "item"]

# MovieLens 100K, 1M, and 10M and later.
MOVIELENS_FILES: Final = ("u.data", "ratings.dat", "ratings.csv")
_ADVICE: Final = (
    "give a CSV, TSV, JSONL or Parquet file, a MovieLens directory, - for standard input, archive[:PATH] or "
    f"{demo.SPEC_FORM}."
)
_FORMAT_OF_SUFFIX: Final[dict[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".csv": "table",
    ".tsv": "table",
    ".inter": "table",  # of RecBole
}
_FORMAT_NAMES: Final[dict[Format, str]] = {"table": "CSV or TSV", "jsonl": "JSONL", "parquet": "Parquet"}
_SPREADSHEETS: Final = (".xlsx", ".xls", ".ods")
_PARQUET: Final = b"PAR1"
_JSON_OBJECT: Final = re.compile(rb"\s*\{\s*[\"}]")
# Files of users and items beside the interactions, see `side_file`.
_SIDE_STEMS: Final[dict[Role, str]] = {"user": "users", "item": "items"}
_RECBOLE: Final = ".inter"
_NEVER_JSON: Final = ("u.data", "ratings.dat")
_HEAD_BYTES: Final = 4096
# The name by which Hive writes a null.
_NULL_PARTITION: Final = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class DataFile:
    """One file of a source."""

    path: Path
    name: str  # its name in messages
    partitions: tuple[tuple[str, str], ...] = ()  # (name, value) of columns by Hive's directories

    @property
    def short_name(self) -> str:
        """The name without directories, printable."""
        return printable(Path(self.name).name)


@dataclass(frozen=True)
class Source:
    """The files of a source."""

    files: tuple[DataFile, ...]  # at least one, in the order in which they are read
    hashed_files: tuple[Path, ...]  # the fingerprint is of their bytes: `files`, or the archive that holds them
    notes: tuple[str, ...] = ()  # sentences about the choice of files
    folder: Path | None = None  # where files of users and items may be; None for a pipe


@contextmanager
def open_source(path_text: str) -> Iterator[Source]:
    """Find the files of a path; those of a zip archive exist until the block ends.

    Args:
        path_text: A file, a MovieLens directory, a directory of part files, a zip archive of any of these, or "-".

    Raises:
        DataError: There is no such file, or it cannot be read.
    """
    path, name = _locate(path_text)
    if path.is_dir():
        yield _source_in_directory(path, name)
    elif zipfile.is_zipfile(path):
        with zip_archive.unpacked(path, name) as folder:
            yield _source_in_archive(folder, path, name)
    else:
        # The copy of a pipe lies among files that have nothing to do with it.
        yield Source((DataFile(path, name),), (path,), folder=path.parent if name == str(path) else None)


def fingerprint(path_text: str) -> str:
    """Return "sha256:…" over the bytes of the files of a path, without unpacking anything.

    Raises:
        DataError: There is no such file, or it cannot be read.
    """
    path, name = _locate(path_text)
    return sha256_of(_source_in_directory(path, name).hashed_files if path.is_dir() else (path,))


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
            raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return f"sha256:{digest.hexdigest()}"


def side_file(source: Source, role: Role) -> DataFile | None:
    """Return the file of users or of items beside the interactions of a source; None if there is none."""
    if source.folder is None:
        return None
    own = {file.path for file in source.files}
    try:
        beside = list(source.folder.iterdir())
    except OSError:
        # A file may be readable in a directory that is not.
        return None
    found = sorted(
        path
        for path in beside
        if path not in own and path.is_file() and (_is_side_file(path, role) or _is_recbole_side(path, own, role))
    )
    return DataFile(found[0], found[0].name) if found else None


def _is_side_file(path: Path, role: Role) -> bool:
    return path.name.partition(".")[0].lower() == _SIDE_STEMS[role] and _format_by_suffix(path) is not None


def _is_recbole_side(path: Path, own: set[Path], role: Role) -> bool:
    return path.suffix == f".{role}" and any(path.with_suffix(_RECBOLE) == each for each in own)


def detect_format(file: DataFile, options: ReadOptions) -> Format:
    """Return a file's format by its first bytes, else by its name.

    Raises:
        DataError: It is a broken compressed file, or a compressed Parquet file.
        OSError: It cannot be read.
    """
    with open_text(file.path, options.encoding) as text:
        head = text.read(_HEAD_BYTES)
    if head.startswith(_PARQUET):
        with file.path.open("rb") as raw:
            compression = detect_compression(raw.read(_HEAD_BYTES))
        if compression is not None:
            raise DataError(f"{file.name} is a Parquet file that is compressed with {compression}: decompress it.")
        return "parquet"
    # A brace without a key is not JSON: ids of a table may be GUIDs in braces.
    if _JSON_OBJECT.match(head.removeprefix(BYTE_ORDER_MARK)) and not file.short_name.startswith(_NEVER_JSON):
        return "jsonl"
    return _format_by_suffix(file.path) or "table"


def _locate(path_text: str) -> tuple[Path, str]:
    """Return a path, and its name in messages."""
    if path_text == STDIN:
        return piped_input.copy_of_standard_input(), "standard input"
    if not path_text.strip():
        raise DataError(f"No data is named: {_ADVICE}")
    path = Path(path_text).expanduser()
    try:
        if not path.exists():
            raise DataError(f"There is no {path_text!r}: {_ADVICE}")
        if path.is_fifo():
            return piped_input.copy_of_pipe(path), f"pipe {path.name}"
        if not (path.is_dir() or path.is_file()):
            raise DataError(f"{path} is neither a file, a directory nor a pipe.")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # a NUL within the name
        raise DataError(f"{path_text!r} cannot be a path: {error}.") from error
    if path.suffix.lower() in _SPREADSHEETS:
        raise DataError(f"{path} is a spreadsheet, which is not supported: save it as CSV.")
    return path, str(path)


def _format_by_suffix(path: Path) -> Format | None:
    """Return the format by the suffix, without that of a compression."""
    suffixes = path.suffixes
    if suffixes and suffixes[-1].lower() in COMPRESSED_SUFFIXES:
        suffixes = suffixes[:-1]
    return _FORMAT_OF_SUFFIX.get(suffixes[-1].lower()) if suffixes else None


def _source_in_archive(folder: Path, archive: Path, name: str) -> Source:
    """Return the files of a zip archive, which was unpacked into a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    if len(files) == 1:
        return Source((DataFile(files[0], f"{name}/{files[0].name}"),), (archive,), folder=files[0].parent)
    # An archive of a directory holds that directory.
    inside = list(folder.iterdir())
    while len(inside) == 1 and inside[0].is_dir():
        folder, inside = inside[0], list(inside[0].iterdir())
    source = _source_in_directory(folder, name)
    return Source(source.files, (archive,), source.notes, source.folder)


def _source_in_directory(folder: Path, name: str) -> Source:
    try:
        return _movielens(folder, name) or _part_file_source(folder, name)
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}.") from error


def _movielens(folder: Path, name: str) -> Source | None:
    names = (f"{plain}{suffix}" for plain in MOVIELENS_FILES for suffix in ("", *COMPRESSED_SUFFIXES))
    ratings = [each for each in names if (folder / each).is_file()]
    if not ratings:
        return None
    first, *others = ratings
    notes = (f"{printable(name)} holds {' and '.join(others)} too; only {first} was read.",) if others else ()
    return Source((DataFile(folder / first, str(Path(name) / first)),), (folder / first,), notes, folder)


def _part_file_source(folder: Path, name: str) -> Source:
    files = sorted(
        path
        for path in _part_files(folder)
        if path.parent != folder or not any(_is_side_file(path, role) for role in _SIDE_STEMS)
    )
    if not files:
        has_folders = any(path.is_dir() for path in folder.iterdir())
        raise DataError(
            f"{name} holds none of {', '.join(MOVIELENS_FILES)} and no CSV, TSV, JSONL or Parquet files, so it is no "
            "MovieLens directory and no set of part files"
            + ("; directories within it count only if they are called NAME=VALUE." if has_folders else ".")
        )
    formats = {format_ for path in files if (format_ := _format_by_suffix(path)) is not None}
    if len(formats) > 1:
        both = " and ".join(sorted(_FORMAT_NAMES[format_] for format_ in formats))
        raise DataError(f"{name} holds both {both} files: give one of them, or a directory of one kind.")
    parts = tuple(
        DataFile(path, str(Path(name) / path.relative_to(folder)), _partitions(path.relative_to(folder)))
        for path in files
    )
    notes = (f"{len(parts)} files of {printable(name)} were read.",) if len(parts) > 1 else ()
    return Source(parts, tuple(files), notes, folder)


def _part_files(folder: Path) -> Iterator[Path]:
    """Yield the part files of a directory, and of directories that Hive calls partitions."""
    for path in folder.iterdir():
        # Writers of part files also write marker files, such as _SUCCESS.
        if path.name.startswith(("_", ".")):
            continue
        if path.is_file() and _format_by_suffix(path) is not None:
            yield path
        elif "=" in path.name and path.is_dir():
            yield from _part_files(path)


def _partitions(path: Path) -> tuple[tuple[str, str], ...]:
    """Return (name, value) of the directories of a part file."""
    pairs = (unquote(part).partition("=") for part in path.parts[:-1])
    return tuple((name, "" if value == _NULL_PARTITION else value) for name, _, value in pairs)
