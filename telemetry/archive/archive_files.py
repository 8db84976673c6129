"""The archive's files: `date=YYYY-MM-DD/part-<lease>-<turn>.jsonl`, and the same under `deadletters/`.

Invariants:

- A part belongs to one lease and one turn of it, so no two consumers ever write to the same file, and once
  the catalogue has sealed the older turns nobody does.
- Bytes count once the catalogue says so; `ArchiveFiles` writes from the committed length on, so a failed or
  abandoned append is overwritten or cut, and never becomes part of the archive.
- `append` returns after fdatasync, and a new file's directory is synced before its first line counts.
- After a failed write or sync the file is given up and a new part begun: a second fsync of the same file
  may say yes to what the first one lost.

Used by one thread.
"""

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from telemetry.catalogue.commit import FileLength
from telemetry.wal.disk import sync_directory

DEAD_LETTERS: Final = "deadletters"
# In the name of a file that took another's place, before the lease and a number: part-….rewritten-00000002-1.jsonl.
REWRITTEN: Final = ".rewritten-"
_WRITTEN_BY: Final = re.compile(r"-(\d{8})-\d+\.[a-z]+$")
# Two dates around midnight and the dead letters are in use at once; late events reopen an older one.
_MOST_OPEN = 8


def date_folder(received_at: str) -> str:
    """Name the folder of an event by the UTC date it was received on."""
    return f"date={received_at[:10]}"


class ArchiveFiles:
    """The parts that one lease writes, turn after turn.

    Args:
        root: The archive's directory.
        lease_epoch: The lease.
        turn_bytes: A new turn begins once a part is this long.
        turn_s: A new turn begins once the first commit of this one is this old.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        root: Path,
        lease_epoch: int,
        turn_bytes: int,
        turn_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._lease_epoch = lease_epoch
        self._turn_bytes = turn_bytes
        self._turn_s = turn_s
        self._clock = clock
        self._turn = 0
        # When the catalogue first had something of this turn; until then it may hold older turns as not sealed.
        self._begun_s: float | None = None
        self._fds: dict[str, int] = {}
        self._lengths: dict[str, FileLength] = {}

    @property
    def name(self) -> str:
        """What the parts of this turn are called; no part of ours with a smaller name is appended to any more."""
        return f"part-{self._lease_epoch:08d}-{self._turn:06d}.jsonl"

    @property
    def due(self) -> bool:
        """Whether this turn has lasted long enough."""
        if self._begun_s is None:
            return False
        longest_bytes = max((length.size_bytes for length in self._lengths.values()), default=0)
        return longest_bytes >= self._turn_bytes or self._clock() - self._begun_s >= self._turn_s

    @property
    def fresh(self) -> bool:
        """Whether nothing of this turn is committed, so that a commit may seal everything else."""
        return self._begun_s is None

    def turn(self) -> None:
        """Begin the next turn: what is appended from now on goes to new files."""
        self.close()
        self._turn += 1
        self._begun_s = None
        self._lengths.clear()

    def append(self, folders: Mapping[str, tuple[bytes, int]]) -> dict[str, FileLength]:
        """Write and sync; nothing counts before the catalogue has the result.

        Args:
            folders: For each folder the bytes to add, and how many lines they are.

        Returns:
            By path: the lengths to commit.

        Raises:
            OSError: The disk refused; these parts are given up.
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
            self.turn()
            raise
        return lengths

    def committed(self, lengths: Mapping[str, FileLength]) -> None:
        """Go on from what the catalogue now says.

        Args:
            lengths: What `append` returned.
        """
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
            if len(self._fds) >= _MOST_OPEN:
                self.close()
            full = self._root / path
            if not full.parent.is_dir():
                full.parent.mkdir(mode=0o700, parents=True)
                sync_directory(self._root)
            fd = os.open(full, os.O_WRONLY | os.O_CREAT, 0o600)
            self._fds[path] = fd
            sync_directory(full.parent)
        return fd


def written_by(name: str) -> int | None:
    """Tell under which lease a part was begun, or a file rewritten; None for the files of others."""
    match = _WRITTEN_BY.search(name)
    return None if match is None else int(match[1])


def cut_to_committed(root: Path, lengths: Mapping[str, FileLength], lease_epoch: int) -> list[str]:
    """Remove from the files what no commit knows of; the caller has just taken the lease.

    Of other files than parts only those are looked at that `rewriting` makes.

    Args:
        root: The archive's directory.
        lengths: What the catalogue says.
        lease_epoch: Our lease. If we have lost it again by now, our successor's files are none of our business.

    Returns:
        Paths that are shorter than the catalogue says: damage from outside, left as it is.
    """
    ours = ["date=*/part-*.jsonl", f"{DEAD_LETTERS}/part-*.jsonl", f"*/*{REWRITTEN}*"]
    for file in [file for pattern in ours for file in root.glob(pattern)]:
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
