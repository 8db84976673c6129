"""The archive's files: `date=YYYY-MM-DD/part-<lease>-<rotation>.jsonl`, and the same under `deadletters/`.

Invariants: a part is written by one lease, in one rotation, until the catalogue seals it. Bytes count once the
catalogue has their length; a failed or abandoned append is overwritten or cut. `append` returns after fdatasync, and a
new file's directory is synced before its first line counts. After a failed write or sync a new part is begun: a second
fsync of the same file may succeed although the first one lost data.

Used by one thread.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from telemetry.archive.parquet_file import SUFFIX, read_lines
from telemetry.catalogue.commit import FileLength
from telemetry.wal.disk import sync_directory

DEAD_LETTERS: Final = "deadletters"
DATE_PREFIX: Final = "date="
# In the name of a rewritten file, before its lease and a number: part-….rewritten-00000002-1.jsonl.
REWRITTEN: Final = ".rewritten-"
_WRITTEN_BY: Final = re.compile(r"-(\d{8})-\d+\.[a-z]+$")
# Around midnight two dates and the dead letters are in use at once; delayed events reopen an older date.
_MAX_OPEN: Final = 8


def date_folder(received_at: str) -> str:
    """Name the folder of an event by the UTC date it was received on."""
    return f"{DATE_PREFIX}{received_at[:10]}"


def date_of(path: str) -> str:
    """Return the UTC date of a file of events, by its path relative to the archive."""
    return path.removeprefix(DATE_PREFIX).partition("/")[0]


class ArchiveFiles:
    """The parts that one lease writes, rotation after rotation.

    Args:
        max_bytes: Rotation is due once a part is this long.
        max_age_s: Rotation is due once the first commit of this rotation is this old.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        root: Path,
        lease_epoch: int,
        max_bytes: int,
        max_age_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._lease_epoch = lease_epoch
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._rotation = 0
        # When the catalogue first had a part of this rotation; until then it may list older parts as not sealed.
        self._begun_s: float | None = None
        self._fds: dict[str, int] = {}
        self._lengths: dict[str, FileLength] = {}

    @property
    def name(self) -> str:
        """The name of the parts of this rotation; parts of this lease with a smaller name are complete."""
        return f"part-{self._lease_epoch:08d}-{self._rotation:06d}.jsonl"

    @property
    def rotation_due(self) -> bool:
        """Whether the parts are long or old enough."""
        if self._begun_s is None:
            return False
        longest_bytes = max((length.size_bytes for length in self._lengths.values()), default=0)
        return longest_bytes >= self._max_bytes or self._clock() - self._begun_s >= self._max_age_s

    @property
    def lengths(self) -> Mapping[str, FileLength]:
        """The committed lengths of the parts of this rotation, by path."""
        return self._lengths

    @property
    def is_fresh(self) -> bool:
        """Whether nothing of this rotation is committed, so that a commit may seal everything else."""
        return self._begun_s is None

    def rotate(self) -> None:
        """Append to new files from now on."""
        self.close()
        self._rotation += 1
        self._begun_s = None
        self._lengths.clear()

    def append(self, folders: Mapping[str, tuple[bytes, int]]) -> dict[str, FileLength]:
        """Write and sync; nothing counts before the catalogue has the result.

        Args:
            folders: By folder: the bytes to add, and how many lines they are.

        Returns:
            By path: the lengths to commit.

        Raises:
            OSError: The disk refused; these parts are abandoned.
        """
        lengths = {}
        try:
            for folder, (data, lines) in folders.items():
                path = f"{folder}/{self.name}"
                before = self._lengths.get(path, FileLength(0, 0))
                fd = self._open(path)
                view = memoryview(data)
                offset = before.size_bytes
                while view:
                    written = os.pwrite(fd, view, offset)
                    view, offset = view[written:], offset + written
                os.fdatasync(fd)
                lengths[path] = FileLength(offset, before.lines + lines)
        except OSError:
            self.rotate()
            raise
        return lengths

    def committed(self, lengths: Mapping[str, FileLength]) -> None:
        """Continue from the lengths that `append` returned; the catalogue has them now."""
        self._lengths.update(lengths)
        if self._begun_s is None and lengths:
            self._begun_s = self._clock()

    def close(self) -> None:
        """Close every file."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    def _open(self, path: str) -> int:
        fd = self._fds.get(path)
        if fd is None:
            if len(self._fds) >= _MAX_OPEN:
                self.close()
            full = self._root / path
            if not full.parent.is_dir():
                full.parent.mkdir(mode=0o700, parents=True)
                sync_directory(self._root)
            fd = os.open(full, os.O_WRONLY | os.O_CREAT, 0o600)
            self._fds[path] = fd
            sync_directory(full.parent)
        return fd


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


def written_by(name: str) -> int | None:
    """Return the lease under which a part was begun or a file rewritten; None for other files."""
    match = _WRITTEN_BY.search(name)
    return None if match is None else int(match[1])


def cut_to_committed(root: Path, lengths: Mapping[str, FileLength], lease_epoch: int) -> list[str]:
    """Remove uncommitted files and bytes, right after the lease was acquired.

    Only parts and rewritten files are touched, and none of a later lease: this one may be lost again by now.

    Returns:
        Paths that are shorter than their committed length: damage from outside, left as it is.
    """
    patterns = [f"{DATE_PREFIX}*/part-*.jsonl", f"{DEAD_LETTERS}/part-*.jsonl", f"*/*{REWRITTEN}*"]
    for file in [file for pattern in patterns for file in root.glob(pattern)]:
        path = str(file.relative_to(root))
        if path not in lengths:
            if (written_by(file.name) or 0) <= lease_epoch:
                file.unlink(missing_ok=True)
        elif file.stat().st_size > lengths[path].size_bytes:
            os.truncate(file, lengths[path].size_bytes)
    return [
        path
        for path, length in lengths.items()
        if not (root / path).is_file() or (root / path).stat().st_size < length.size_bytes
    ]
