"""A slot is a producer's place on disk: `spool/<slot>/`, held by one process at a time.

Invariant: while a `Slot` is open no other process has the same one (an exclusive flock on `lock`), and no
two openings ever use the same (producer, epoch): the epoch is raised and synced before anyone learns it.
The identity lives in `producer.json`, replaced atomically; if it cannot be read, a new producer is born.
"""

import fcntl
import os
from pathlib import Path

import orjson

from telemetry.errors import SlotTakenError, SpoolError
from telemetry.ids import uuid7

_IDENTITY = "producer.json"
_LOCK = "lock"
_MOST_SLOTS = 1024


class Slot:
    """One open slot.

    Attributes:
        number: The slot's number.
        directory: `spool/<slot>/`.
        producer_id: The id its events carry.
        epoch: This opening's epoch, from 1.
        was_clean: Whether the previous holder said that it left nothing behind (True for a new slot).
    """

    def __init__(self, number: int, directory: Path, lock_fd: int) -> None:
        self.number = number
        self.directory = directory
        self._lock_fd: int | None = lock_fd
        self.producer_id, last_epoch, self.was_clean = _read_identity(directory / _IDENTITY)
        self.epoch = last_epoch + 1
        self._write(clean=False)

    def __repr__(self) -> str:
        state = "closed" if self._lock_fd is None else "open"
        return f"<Slot {self.number} {state} producer={self.producer_id} epoch={self.epoch}>"

    @classmethod
    def open(cls, spool: Path, number: int | None) -> "Slot":
        """Take a slot.

        Args:
            spool: The directory that holds all slots; made if it is not there.
            number: Which slot, or None for the lowest free one.

        Returns:
            The slot, held until `close` or the end of the process.

        Raises:
            SlotTakenError: Another process holds it.
            SpoolError: Its directory cannot be used.
        """
        for candidate in [number] if number is not None else range(_MOST_SLOTS):
            directory = spool / str(candidate)
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock_fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                raise SpoolError(f"slot {candidate} in {spool} cannot be used: {error.strerror}") from None
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock_fd)
                continue
            try:
                return cls(candidate, directory, lock_fd)
            except OSError as error:
                os.close(lock_fd)
                raise SpoolError(f"slot {candidate} in {spool} cannot be used: {error.strerror}") from None
        if number is not None:
            raise SlotTakenError(f"slot {number} in {spool} is held by another process")
        raise SlotTakenError(f"all {_MOST_SLOTS} slots in {spool} are held by other processes")

    def raise_epoch(self, above: int) -> None:
        """Start an epoch beyond one that the stream has already seen.

        Args:
            above: The new epoch is larger than this and than the current one.
        """
        self.epoch = max(self.epoch, above) + 1
        self._write(clean=False)

    def renew(self) -> None:
        """Become a new producer, because somebody else wrote under our id."""
        self.producer_id, self.epoch = uuid7(), 1
        self._write(clean=False)

    def close(self, *, clean: bool) -> None:
        """Give the slot back.

        Args:
            clean: Whether every event got out.
        """
        if self._lock_fd is None:
            return
        try:
            self._write(clean=clean)
        finally:
            os.close(self._lock_fd)
            self._lock_fd = None

    def _write(self, *, clean: bool) -> None:
        identity = {"producer": self.producer_id, "epoch": self.epoch, "clean": clean}
        aside = self.directory / f"{_IDENTITY}.new"
        with aside.open("wb") as file:
            file.write(orjson.dumps(identity, option=orjson.OPT_APPEND_NEWLINE))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.directory / _IDENTITY)
        # Without this the rename itself may be forgotten by a power cut, and an epoch used twice.
        for path in (self.directory, self.directory.parent):
            directory_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory_fd)
            finally:
                os.close(directory_fd)


def _read_identity(path: Path) -> tuple[str, int, bool]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return uuid7(), 0, True
    try:
        identity = orjson.loads(content)
        producer, epoch, clean = identity["producer"], identity["epoch"], identity["clean"]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        producer, epoch, clean = None, None, None
    if not (type(producer) is str and producer and type(epoch) is int and epoch >= 1 and type(clean) is bool):
        # The past of this slot is unknown, so it must not be continued.
        return uuid7(), 0, False
    return producer, epoch, clean
