"""A slot is a producer's place on disk: `spool/<slot>/`, held by one process at a time.

Invariant: while a `Slot` is open no other process has the same one (an exclusive flock on `lock`). What must not be
forgotten of a producer lies in `producer.json`, replaced atomically and durably: its id, its epoch, whether it stopped
clean, how far each earlier epoch got, and which segments have been written anew under this identity.
"""

import fcntl
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import orjson

from telemetry.batch import Position
from telemetry.errors import SlotTakenError, SpoolError
from telemetry.wal.disk import Disk, RealDisk

IDENTITY: Final = "producer.json"
LOCK: Final = "lock"
_MOST_SLOTS = 1024
_POLL_S = 0.02
# Enough for the audit of any recent past, and few enough for one block.
_MOST_ENDED = 40
_BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Identity:
    """What a slot remembers.

    Attributes:
        producer: The id that its events carry.
        epoch: The last epoch that was begun.
        clean: Whether everything of it got out.
        ended: By (producer, epoch): the last number of epochs that are over, the newest forty.
        moving: The (producer, epoch) that events are being numbered anew under, until that is finished.
        replaced: Names of segments whose events were numbered anew under this identity, and that are to be removed.
        cut: By (producer, epoch): the last number that counts in segments; what lay beyond it was numbered anew.
        archive: The archive that its events go to; None until the first of them is shipped.
    """

    producer: str
    epoch: int
    clean: bool = False
    ended: Mapping[tuple[str, int], int] = field(default_factory=lambda: MappingProxyType({}))
    moving: tuple[str, int] | None = None
    replaced: tuple[str, ...] = ()
    cut: Mapping[tuple[str, int], int] = field(default_factory=lambda: MappingProxyType({}))
    archive: str | None = None

    def with_ended(self, producer: str, epoch: int, last_seq: int) -> "Identity":
        """Remember how far an epoch got, if that is further than is known; one without events is not worth it."""
        if last_seq <= self.ended.get((producer, epoch), 0):
            return self
        ended = {**self.ended, (producer, epoch): last_seq}
        return replace(self, ended=MappingProxyType(dict(list(ended.items())[-_MOST_ENDED:])))

    def with_moved(self, after: Position) -> "Identity":
        """Remember that what the producer had beyond a place got other numbers."""
        left = {key: seq for key, seq in self.ended.items() if key[0] != self.producer or key[1] < after.epoch}
        last_seq = min(after.seq, self.ended.get((self.producer, after.epoch), 0))
        cut = {**self.cut, (self.producer, after.epoch): after.seq}
        moved = replace(
            self, ended=MappingProxyType(left), cut=MappingProxyType(dict(list(cut.items())[-_MOST_ENDED:]))
        )
        return moved.with_ended(self.producer, after.epoch, last_seq)


class Slot:
    """One open slot.

    Attributes:
        number: The slot's number.
        directory: `spool/<slot>/`.
        identity: What it remembers; None for a new slot, or one whose memory cannot be read.
        is_new: Whether there was nothing to remember.
    """

    def __init__(self, number: int, directory: Path, lock_fd: int, disk: Disk) -> None:
        self.number = number
        self.directory = directory
        self.is_new = IDENTITY not in disk.names(directory)
        self.identity = None if self.is_new else decode_identity(disk.read(directory / IDENTITY))
        self._disk = disk
        self._lock_fd: int | None = lock_fd

    def __repr__(self) -> str:
        state = "closed" if self._lock_fd is None else "open"
        return f"<Slot {self.number} {state} {self.identity}>"

    @classmethod
    def open(cls, spool: Path, number: int | None, disk: Disk | None = None, *, patience_s: float = 0.0) -> "Slot":
        """Take a slot.

        Args:
            spool: The directory that holds all slots; made if it is not there.
            number: Which slot, or None for the lowest free one.
            disk: The file system; the lock is always the real one's.
            patience_s: How long to wait for a slot that was asked for by number: who looks at it, or ships what it
                holds, has it for a moment.

        Returns:
            The slot, held until `close` or the end of the process.

        Raises:
            SlotTakenError: Another process holds it.
            SpoolError: Its directory cannot be used.
        """
        disk = disk or RealDisk()
        for candidate in [number] if number is not None else range(_MOST_SLOTS):
            directory = spool / str(candidate)
            try:
                disk.make_directory(directory)
                lock_fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                raise SpoolError(f"slot {candidate} in {spool} cannot be used: {error.strerror}") from None
            if not _lock(lock_fd, patience_s if number is not None else 0.0):
                os.close(lock_fd)
                continue
            try:
                return cls(candidate, directory, lock_fd, disk)
            except OSError as error:
                os.close(lock_fd)
                raise SpoolError(f"slot {candidate} in {spool} cannot be used: {error.strerror}") from None
        if number is not None:
            raise SlotTakenError(f"slot {number} in {spool} is held by another process")
        raise SlotTakenError(f"all {_MOST_SLOTS} slots in {spool} are held by other processes")

    def remember(self, identity: Identity) -> None:
        """Replace what the slot remembers, durably.

        Args:
            identity: From now on.

        Raises:
            OSError: The disk refused; the slot remembers what it did.
        """
        try:
            self._disk.replace(self.directory / IDENTITY, encode_identity(identity))
            # The slot's own name must not be forgotten either.
            self._disk.sync_directory(self.directory.parent)
        except OSError:
            if self.identity is not None:
                # It may be there although it could not be synced.
                with suppress(OSError):
                    self._disk.replace(self.directory / IDENTITY, encode_identity(self.identity))
            raise
        self.identity = identity

    def close(self) -> None:
        """Give the slot back."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


def _lock(fd: int, patience_s: float) -> bool:
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(_POLL_S)
        else:
            return True


def is_held(directory: Path) -> bool:
    """Tell whether a living process holds a slot.

    Args:
        directory: `spool/<slot>/`.

    Returns:
        True if somebody does; the lock is tried for a moment to find out.

    Raises:
        OSError: The directory cannot be looked into.
    """
    try:
        fd = os.open(directory / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look do not take each other for the holder.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def archive_of_slot(directory: Path) -> str | None:
    """Tell which archive a slot's events go to.

    Args:
        directory: `spool/<slot>/`.

    Returns:
        The archive's identity; None if there is no such slot, or nothing of it was shipped yet.
    """
    with suppress(OSError):
        identity = decode_identity((directory / IDENTITY).read_bytes())
        return None if identity is None else identity.archive
    return None


def encode_identity(identity: Identity) -> bytes:
    """Write an identity as one padded block, so that it can be overwritten on a full disk."""
    fields = {
        "producer": identity.producer,
        "epoch": identity.epoch,
        "clean": identity.clean,
        "ended": [[producer, epoch, last_seq] for (producer, epoch), last_seq in identity.ended.items()],
        "moving": identity.moving,
        "replaced": identity.replaced,
        "cut": [[producer, epoch, last_seq] for (producer, epoch), last_seq in identity.cut.items()],
        "archive": identity.archive,
    }
    data = orjson.dumps(fields)
    return data.ljust(-(-(len(data) + 1) // _BLOCK_BYTES) * _BLOCK_BYTES - 1) + b"\n"


def decode_identity(data: bytes) -> Identity | None:
    """Read an identity.

    Args:
        data: What `encode_identity` wrote, or the released version's file, which knew no ended epochs.

    Returns:
        The identity, or None if it cannot be read: then the past of the slot is unknown.
    """
    try:
        fields = orjson.loads(data)
        producer, epoch, clean = fields["producer"], fields["epoch"], fields["clean"]
        ended = {(str(one[0]), int(one[1])): int(one[2]) for one in fields.get("ended", [])}
        moving = fields.get("moving")
        moving = None if moving is None else (str(moving[0]), int(moving[1]))
        replaced = tuple(map(str, fields.get("replaced", [])))
        cut = {(str(one[0]), int(one[1])): int(one[2]) for one in fields.get("cut", [])}
        archive = fields.get("archive")
        archive = None if archive is None else str(archive)
    except (orjson.JSONDecodeError, TypeError, KeyError, IndexError, ValueError, AttributeError):
        return None
    if not (type(producer) is str and producer and type(epoch) is int and epoch >= 1 and type(clean) is bool):
        return None
    return Identity(producer, epoch, clean, MappingProxyType(ended), moving, replaced, MappingProxyType(cut), archive)
