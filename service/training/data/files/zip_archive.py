"""Zip archives, unpacked into a temporary directory.

Invariant: nothing of an archive is left when the block ends, and it never fills the disk: the sizes that it declares
must fit beforehand.
"""

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from service.errors import DataError

_USABLE_DISK_SHARE: Final = 0.8
# Every Office Open XML document has this member.
_OFFICE_MEMBER: Final = "[Content_Types].xml"


@contextmanager
def unpacked(path: Path, name: str) -> Iterator[Path]:
    """Unpack a zip archive, which messages call `name`, into a temporary directory for as long as the block runs.

    Raises:
        DataError: The archive is broken, encrypted, empty, an office document, or too large for the disk.
        OSError: It cannot be read, or the directory cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="recollect-data-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                members = [info for info in archive.infolist() if _is_data(info)]
                if any(info.filename == _OFFICE_MEMBER for info in archive.infolist()):
                    raise DataError(f"{name} is a spreadsheet or another office document: save it as CSV.")
                if not members:
                    raise DataError(f"{name} is a zip archive without files in it.")
                n_bytes = sum(info.file_size for info in members)
                usable_bytes = int(shutil.disk_usage(folder).free * _USABLE_DISK_SHARE)
                if n_bytes > usable_bytes:
                    raise DataError(
                        f"{name} unpacks to {n_bytes:,} bytes, and {folder} has room for {usable_bytes:,}: "
                        "unpack it elsewhere and give the directory, or set TMPDIR."
                    )
                for info in members:
                    archive.extract(info, folder)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise DataError(f"{name} is a zip archive that cannot be unpacked: {error}.") from error
        except RuntimeError as error:  # zipfile's error for a member with a password
            raise DataError(f"{name} is encrypted: unpack it and give its files.") from error
        yield Path(folder)


def _is_data(info: zipfile.ZipInfo) -> bool:
    """Whether a member is a data file; macOS adds files of its own."""
    parts = Path(info.filename).parts
    return not info.is_dir() and not any(part.startswith(".") or part == "__MACOSX" for part in parts)
