"""What has to be put into temporary files before it can be read: zip archives and standard input.

Invariant: nothing of it is left when the process ends, and a zip archive never fills the disk: what it promises to hold
must fit beforehand.
"""

import functools
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from service.errors import DataError

# What of a disk's free room may be used.
_SHARE: Final = 0.8
# Every Office Open XML document has it.
_OFFICE: Final = "[Content_Types].xml"


@contextmanager
def unpacked(path: Path, name: str) -> Iterator[Path]:
    """Unpack a zip archive into a temporary directory for as long as the block runs.

    Args:
        path: The archive.
        name: The archive, for messages.

    Yields:
        The directory.

    Raises:
        DataError: The archive is broken, encrypted, empty, a document of an office program, or too large for the disk.
        OSError: It cannot be read, or the directory cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="recollect-data-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                members = [info for info in archive.infolist() if _is_data(info)]
                if any(info.filename == _OFFICE for info in archive.infolist()):
                    raise DataError(f"{name} is a spreadsheet or another office document: save it as CSV")
                if not members:
                    raise DataError(f"{name} is a zip archive without files in it")
                n_bytes = sum(info.file_size for info in members)
                room_bytes = shutil.disk_usage(folder).free * _SHARE
                if n_bytes > room_bytes:
                    raise DataError(
                        f"{name} unpacks to {n_bytes:,} bytes, and {folder} has room for {int(room_bytes):,}: "
                        "unpack it elsewhere and give the directory, or set TMPDIR"
                    )
                for info in members:
                    archive.extract(info, folder)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise DataError(f"{name} is a zip archive that cannot be unpacked: {error}") from error
        except RuntimeError as error:  # what zipfile raises for a member with a password
            raise DataError(f"{name} is encrypted: unpack it and give what it holds") from error
        yield Path(folder)


def standard_input() -> Path:
    """Return a file with all of standard input, which is read once; the file is deleted when the process ends.

    Raises:
        DataError: Standard input is a terminal, or cannot be read.
    """
    return Path(_copy_of_standard_input().name)


@functools.cache
def _copy_of_standard_input() -> IO[bytes]:
    if sys.stdin is None or sys.stdin.isatty():
        raise DataError("standard input is a terminal: pipe the data in, as in: zcat ratings.csv.gz | … --data -")
    copy = tempfile.NamedTemporaryFile(prefix="recollect-stdin-")  # noqa: SIM115 - lives as long as the process
    try:
        shutil.copyfileobj(sys.stdin.buffer, copy, 1 << 20)
        copy.flush()
    except OSError as error:
        raise DataError(f"standard input cannot be read: {error.strerror or error}") from error
    return copy


def _is_data(info: zipfile.ZipInfo) -> bool:
    """Tell whether a member is a file that a person put there; macOS adds files of its own."""
    parts = Path(info.filename).parts
    return not info.is_dir() and not any(part.startswith(".") or part == "__MACOSX" for part in parts)
