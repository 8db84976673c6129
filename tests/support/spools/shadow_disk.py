"""A disk in memory that keeps what was synced, can refuse, and can stop the process or the power anywhere.

What it may do after a power cut is more than any real file system does: each unsynced 512-byte sector is there or not,
each unsynced name is as it was at any moment since its directory was synced, each 4 KiB page of a mapped file is old or
new. After a kill everything that was written stays.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from telemetry.wal.disk import Buffer, File

_SECTOR = 512
_PAGE = 4096


class Crash(BaseException):
    """The process or the machine stopped here. No part of the program may go on, so it is not an Exception."""


class _Inode:
    """A file's bytes as the process sees them, and as a power cut would leave them."""

    def __init__(self) -> None:
        self.live = bytearray()
        self.durable = bytearray()
        self.grain = _SECTOR
        self.dirty: set[int] = set()
        self.resized = False

    def copy(self) -> "_Inode":
        other = _Inode()
        other.live, other.durable = bytearray(self.live), bytearray(self.durable)
        other.grain, other.dirty, other.resized = self.grain, set(self.dirty), self.resized
        return other

    def touched(self, start: int, stop: int) -> None:
        self.dirty.update(range(start // self.grain, -(-stop // self.grain)))

    def resize(self, size_bytes: int) -> None:
        del self.live[size_bytes:]
        self.live.extend(bytes(size_bytes - len(self.live)))
        self.resized = True

    def keep(self, grains: set[int]) -> None:
        """Write these parts back."""
        if self.resized:
            # What lies beyond a length that is not synced yet reads as zeros or not at all; it is decided at the cut.
            self.durable.extend(bytes(max(0, len(self.live) - len(self.durable))))
        for grain in grains:
            start, stop = grain * self.grain, min((grain + 1) * self.grain, len(self.live))
            if start < stop:
                self.durable[start:stop] = self.live[start:stop]

    def sync(self) -> None:
        self.keep(self.dirty)
        self.dirty.clear()
        del self.durable[len(self.live) :]
        self.durable.extend(bytes(len(self.live) - len(self.durable)))
        self.resized = False

    def after_power_cut(self, rng: Random) -> "_Inode":
        short = self.resized and rng.random() < 0.5
        size_before = len(self.durable)
        self.keep({grain for grain in self.dirty if rng.random() < 0.5})
        other = _Inode()
        other.grain = self.grain
        other.live = bytearray(self.durable[: size_before if short else len(self.live)])
        other.durable = bytearray(other.live)
        return other


class _Mapped(bytearray):
    """A mapped file: each assignment is a moment at which the process may be stopped."""

    inode: _Inode
    moment: Callable[[str], None]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.moment("store")
        super().__setitem__(key, value)
        start, stop, _ = key.indices(len(self)) if isinstance(key, slice) else (key, key + 1, 1)
        self.inode.touched(start, stop)


class _File:
    def __init__(self, disk: "ShadowDisk", inode: _Inode) -> None:
        self._disk = disk
        self._inode = inode

    def write_at(self, data: bytes, offset: int) -> None:
        inode = self._inode
        try:
            self._disk.moment("write")
        except (Crash, OSError):
            # A write that fails or is interrupted may have got some of the way.
            if not self._disk.stopped_before:
                data = data[: self._disk.rng.randrange(len(data) + 1)]
                inode.live[offset : offset + len(data)] = data
                inode.touched(offset, offset + len(data))
            raise
        inode.live[offset : offset + len(data)] = data
        inode.touched(offset, offset + len(data))

    def sync(self) -> None:
        self._disk.sync_inode(self._inode)

    def truncate(self, size_bytes: int) -> None:
        self._disk.moment("truncate")
        self._inode.resize(size_bytes)

    def close(self) -> None:
        return


class ShadowDisk:
    """An implementation of `telemetry.wal.disk.Disk`.

    Args:
        rng: Decides what survives.

    Attributes:
        moments: How many operations there were; each is a place to crash.
        crash_at: The number of the operation to crash at, or None.
        refusals: Errors to raise, by kind of operation: "write", "sync", "create", "replace", "unlink" or "directory".
        stopped_before: Whether an earlier operation crashed already.
    """

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.moments = 0
        self.crash_at: int | None = None
        self.refusals: dict[str, int] = {}
        self.stopped_before = False
        self._stopped = False
        self._entries: dict[Path, dict[str, _Inode]] = {}
        # By directory and name: every state since the directory was synced, the synced one first.
        self._history: dict[Path, dict[str, list[_Inode | None]]] = {}
        self._mapped: list[_Mapped] = []

    def moment(self, kind: str) -> None:
        """Pass a moment at which the process may be stopped, or the disk may refuse."""
        self.stopped_before = self._stopped
        if self._stopped:
            raise Crash
        self.moments += 1
        if self.moments == self.crash_at:
            self._stopped = True
            raise Crash
        number = self.refusals.get(kind)
        if number is not None:
            raise OSError(number, os.strerror(number))

    def stop(self) -> None:
        """End the process: every later operation raises."""
        self._stopped = True

    def after_kill(self, rng: Random) -> "ShadowDisk":
        """Return the disk as the next process finds it."""
        other = ShadowDisk(rng)
        self._settle_mapped()
        copies: dict[int, _Inode] = {}

        def copy(inode: _Inode) -> _Inode:
            return copies.setdefault(id(inode), inode.copy())

        for directory, entries in self._entries.items():
            other._entries[directory] = {name: copy(inode) for name, inode in entries.items()}
            other._history[directory] = {
                name: [None if inode is None else copy(inode) for inode in states]
                for name, states in self._history[directory].items()
            }
        return other

    def after_power_cut(self, rng: Random) -> "ShadowDisk":
        """Return the disk as the next process finds it, with less of what was not synced."""
        other = ShadowDisk(rng)
        self._settle_mapped()
        for directory, entries in self._entries.items():
            chosen: dict[str, _Inode | None] = dict(entries)
            for name, states in self._history[directory].items():
                chosen[name] = rng.choice([*states, entries.get(name)])
            other._history[directory] = {}
            other._entries[directory] = {
                name: inode.after_power_cut(rng) for name, inode in sorted(chosen.items()) if inode is not None
            }
        return other

    def write_back(self, rng: Random) -> None:
        """Write some unsynced parts back, as a kernel may at any time."""
        self._settle_mapped()
        for directory in self._entries.values():
            for inode in directory.values():
                inode.keep({grain for grain in inode.dirty if rng.random() < 0.5})

    def data_of(self, path: Path) -> bytearray:
        """Return a file's bytes, to be looked at or damaged."""
        self._settle_mapped()
        return self._entries[path.parent][path.name].live

    def make_directory(self, path: Path) -> None:
        for directory in (*reversed(path.parents), path):
            self._entries.setdefault(directory, {})
            self._history.setdefault(directory, {})

    def names(self, directory: Path) -> list[str]:
        if self._stopped:
            raise Crash
        return sorted(self._entries[directory])

    def create(self, path: Path, size_bytes: int) -> File:
        self.moment("create")
        if path.name in self._entries[path.parent]:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        inode = _Inode()
        inode.resize(size_bytes)
        self._set(path, inode)
        return _File(self, inode)

    def map(self, path: Path, size_bytes: int) -> Buffer:
        self.moment("map")
        inode = self._entries[path.parent].get(path.name)
        if inode is None:
            inode = _Inode()
            self._set(path, inode)
        inode.grain, inode.dirty = _PAGE, {start * inode.grain // _PAGE for start in inode.dirty}
        if len(inode.live) != size_bytes:
            inode.resize(size_bytes)
        mapped = _Mapped(inode.live)
        mapped.inode, mapped.moment = inode, self.moment
        self._mapped.append(mapped)
        return mapped

    def read(self, path: Path, offset: int = 0, size_bytes: int | None = None) -> bytes:
        if self._stopped:
            raise Crash
        self._settle_mapped()
        inode = self._entries[path.parent].get(path.name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return bytes(inode.live[offset : None if size_bytes is None else offset + size_bytes])

    def sync(self, path: Path) -> None:
        self.sync_inode(self._entries[path.parent][path.name])

    def sync_inode(self, inode: _Inode) -> None:
        """Sync a file."""
        try:
            self.moment("sync")
        except OSError:
            # Some of it got there, and what did not is no longer known to be missing: the next sync will say yes.
            inode.keep({grain for grain in inode.dirty if self.rng.random() < 0.5})
            inode.dirty.clear()
            raise
        inode.sync()

    def replace(self, path: Path, data: bytes) -> None:
        self.moment("replace")
        inode = _Inode()
        inode.live = bytearray(data)
        inode.durable = bytearray(data)
        self._set(path, inode)
        self.sync_directory(path.parent)

    def unlink(self, path: Path) -> None:
        self.moment("unlink")
        if path.name not in self._entries[path.parent]:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._set(path, None)

    def sync_directory(self, path: Path) -> None:
        self.moment("directory")
        self._history[path] = {}

    def free_bytes(self, path: Path) -> int:
        return 1 << 40

    def _set(self, path: Path, inode: _Inode | None) -> None:
        entries = self._entries[path.parent]
        self._history[path.parent].setdefault(path.name, []).append(entries.get(path.name))
        if inode is None:
            del entries[path.name]
        else:
            entries[path.name] = inode

    def _settle_mapped(self) -> None:
        for mapped in self._mapped:
            if len(mapped.inode.live) == len(mapped) and mapped.inode.live != mapped:
                mapped.inode.live[:] = mapped
                # Also bytes packed in place, without an assignment.
                mapped.inode.touched(0, _PAGE)
