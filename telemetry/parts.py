"""The archive's files: `date=YYYY-MM-DD/part-<lease>-<k>.jsonl`, and the same under `deadletters/`.

Invariants:

- A part belongs to one lease, so no two consumers ever write to the same file.
- Bytes count once the catalogue says so; `Parts` writes from the committed length on, so a failed or
  abandoned append is overwritten or cut, and never becomes part of the archive.
- `append` returns after fdatasync, and a new file's directory is synced before its first line counts.
- After a failed write or sync the file is given up and a new part begun: a second fsync of the same file
  may say yes to what the first one lost.

Used by one thread.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from telemetry.catalogue import FileLength

DEAD_LETTERS: Final = "deadletters"
# Two dates around midnight and the dead letters are in use at once; late events reopen an older one.
_MOST_OPEN = 8


def date_folder(received_at: str) -> str:
    """Name the folder of an event by the UTC date it was received on."""
    return f"date={received_at[:10]}"


class Parts:
    """The parts that one lease writes.

    Args:
        root: The archive's directory.
        lease_epoch: The lease.
    """

    def __init__(self, root: Path, lease_epoch: int) -> None:
        self._root = root
        self._lease_epoch = lease_epoch
        self._turn = 0
        self._fds: dict[str, int] = {}
        self._lengths: dict[str, FileLength] = {}

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
                path = f"{folder}/part-{self._lease_epoch:08d}-{self._turn:04d}.jsonl"
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
            self.close()
            self._turn += 1
            raise
        return lengths

    def committed(self, lengths: Mapping[str, FileLength]) -> None:
        """Go on from what the catalogue now says.

        Args:
            lengths: What `append` returned.
        """
        self._lengths.update(lengths)

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
                _sync_directory(self._root)
            fd = os.open(full, os.O_WRONLY | os.O_CREAT, 0o600)
            self._fds[path] = fd
            _sync_directory(full.parent)
        return fd


def cut_to_committed(root: Path, lengths: Mapping[str, FileLength]) -> list[str]:
    """Remove from the files what no commit knows of; the caller has just taken the lease.

    Args:
        root: The archive's directory.
        lengths: What the catalogue says.

    Returns:
        Paths that are shorter than the catalogue says: damage from outside, left as it is.
    """
    for file in [*root.glob("date=*/part-*.jsonl"), *root.glob(f"{DEAD_LETTERS}/part-*.jsonl")]:
        path = str(file.relative_to(root))
        if path not in lengths:
            file.unlink()
        elif file.stat().st_size > lengths[path].size_bytes:
            os.truncate(file, lengths[path].size_bytes)
    return [
        path
        for path, length in lengths.items()
        if not (root / path).is_file() or (root / path).stat().st_size < length.size_bytes
    ]


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
