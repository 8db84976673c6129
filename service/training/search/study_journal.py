"""A study's file: Optuna's journal with a single writer.

Invariant: while a `StudyJournal` is open no other process writes to its file, and the file ends with a whole line.
Optuna reads a journal whose last line was cut off by a kill, but appends to that line; so opening truncates it.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

from service.errors import UsageError

_BLOCK_BYTES: Final = 1 << 16


class StudyJournal:
    """The file, held for as long as the context lasts; the system lets go of it when the process dies.

    Args:
        path: The file; it is made if there is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        """Take hold of the file.

        Raises:
            UsageError: It cannot be written, another search has it, or it is no journal.
        """
        try:
            self._file = self._path.open("a+b")
        except OSError as error:
            raise UsageError(f"the study {self._path} cannot be written: {error.strerror or error}") from error
        try:
            self._hold()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of it."""
        self._file.close()

    def storage(self) -> JournalStorage:
        """Return Optuna's view of it.

        Raises:
            UsageError: It is no journal.
        """
        try:
            return JournalStorage(JournalFileBackend(str(self._path), lock_obj=_Held(str(self._path))))
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            raise UsageError(f"{self._path} is no study of a search") from error

    def _hold(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another search is at work on the study {self._path}") from None
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        if size and self._file.read(1) != b"{":
            raise UsageError(f"{self._path} is no study of a search")
        whole = self._whole_bytes(size)
        if whole < size:
            self._file.truncate(whole)
            os.fsync(self._file.fileno())

    def _whole_bytes(self, size: int) -> int:
        """Return where the last whole line ends."""
        stop = size
        while stop:
            start = max(0, stop - _BLOCK_BYTES)
            self._file.seek(start)
            found = self._file.read(stop - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            stop = start
        return 0


class _Held(JournalFileOpenLock):
    """No further lock: the file is ours alone already."""

    def acquire(self) -> bool:
        """Return True."""
        return True

    def release(self) -> None:
        """Do nothing."""
