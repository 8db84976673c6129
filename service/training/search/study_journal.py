"""A study's file: Optuna's journal with a single writer.

Invariant: while a `StudyJournal` is open no other process writes to its file, and the file ends with a whole line.
Optuna reads a journal whose last line was cut off by a kill, but appends to that line; so opening truncates it.
"""

import fcntl
import os
from pathlib import Path
from typing import Final, Self

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

from service.errors import UsageError

_BLOCK_BYTES: Final = 1 << 16


class StudyJournal:
    """A context that holds the file's lock; the kernel releases it when the process dies.

    Args:
        path: The file; created if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        """Open and lock the file.

        Raises:
            UsageError: It cannot be written, another search has it, or it is no journal.
        """
        try:
            self._file = self._path.open("a+b")
        except OSError as error:
            raise UsageError(f"The study {self._path} cannot be written: {error.strerror or error}.") from error
        try:
            self._lock_and_truncate()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file, which releases the lock."""
        self._file.close()

    def storage(self) -> JournalStorage:
        """Return Optuna's storage on the file.

        Raises:
            UsageError: It is no journal.
        """
        try:
            return JournalStorage(JournalFileBackend(str(self._path), lock_obj=_NoLock(str(self._path))))
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            raise UsageError(f"{self._path} is no study of a search.") from error

    def _lock_and_truncate(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"Another search is at work on the study {self._path}.") from None
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        if size and self._file.read(1) != b"{":
            raise UsageError(f"{self._path} is no study of a search.")
        whole = self._end_of_last_line(size)
        if whole < size:
            self._file.truncate(whole)
            os.fsync(self._file.fileno())

    def _end_of_last_line(self, size: int) -> int:
        stop = size
        while stop:
            start = max(0, stop - _BLOCK_BYTES)
            self._file.seek(start)
            newline = self._file.read(stop - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            stop = start
        return 0


class _NoLock(JournalFileOpenLock):
    """No lock, because `StudyJournal` holds the file's lock already."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass
