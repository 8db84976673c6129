"""The catalogue's file, open: its journal, its transactions, and whose they are.

Invariants:

- A transaction under `held` happens only while the caller's lease epoch is the one in the file, checked within
  it. So a zombie changes nothing.
- Write-ahead journal, `synchronous=FULL`: a finished transaction survives a power cut, unless it is `quick`.

Used by one thread.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from telemetry.catalogue.catalogue_schema import prepare
from telemetry.errors import ArchiveError, LeaseLostError

FILE_NAME: Final = "catalogue.sqlite3"
# No number is removed twice; if one were, that is for the audit to tell and must not stop the archive.
ADD_REMOVED: Final = "INSERT OR REPLACE INTO removed VALUES (?, ?, ?, ?, ?, ?)"
# A writer of ours holds the lock for milliseconds; a frozen one must not hold us for ever.
_BUSY_S = 2.0
# The event ids of a busy day do not fit SQLite's default of 2 MB, and each commit looks among them.
_CACHE_KIB = 32 * 1024


class Database:
    """The open file, made or upgraded if need be.

    Args:
        root: The archive's directory; it exists.

    Raises:
        ArchiveError: The file cannot be opened or is of another version.
    """

    def __init__(self, root: Path) -> None:
        try:
            self.sql = sqlite3.connect(root / FILE_NAME, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise ArchiveError(f"the catalogue in {root} cannot be opened: {error}") from None
        try:
            with self.reading():
                self.sql.execute("PRAGMA journal_mode=WAL")
                self.sql.execute("PRAGMA synchronous=FULL")
                # A user's id must not linger in freed space once it has been forgotten.
                self.sql.execute("PRAGMA secure_delete=ON")
                self.sql.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
                prepare(self.sql, root)
        except BaseException:
            self.sql.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Single statements; what SQLite raises becomes ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise ArchiveError(f"the archive's catalogue failed: {error}") from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing, for anybody."""
        with self.reading():
            self.sql.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.sql.execute("COMMIT")
            except BaseException:
                if self.sql.in_transaction:
                    self.sql.execute("ROLLBACK")
                raise

    @contextmanager
    def held(self, lease_epoch: int) -> Iterator[None]:
        """All of it or nothing, for the holder of the lease; it counts as a sign of life.

        Args:
            lease_epoch: Our lease.

        Raises:
            LeaseLostError: The lease is not ours any more; nothing was changed.
        """
        with self.transaction():
            changed = self.sql.execute(
                "UPDATE lease SET beat = beat + 1 WHERE epoch = ? AND holder <> ''", (lease_epoch,)
            ).rowcount
            if not changed:
                raise LeaseLostError("another consumer took the archive's lease")
            yield

    @contextmanager
    def quick(self) -> Iterator[None]:
        """What is written within survives the process, though perhaps not a power cut, and waits for no disk."""
        self.sql.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            self.sql.execute("PRAGMA synchronous=FULL")

    def empty_journal(self) -> None:
        """Bring everything into the file itself, unless a reader is busy: then a later one does it."""
        with self.reading():
            self.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def ask(root: Path, query: str, since: int = 1) -> list[tuple[Any, ...]]:
    """Ask an archive's catalogue without changing anything, while others write.

    Args:
        root: The archive's directory.
        query: One SELECT.
        since: The first version of the catalogue that has an answer.

    Returns:
        The rows; none if the catalogue is older, or not there yet.

    Raises:
        ArchiveError: The catalogue cannot be read.
    """
    catalogue = root / FILE_NAME
    if not catalogue.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{catalogue.absolute().as_uri()}?mode=ro", uri=True)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            # A consumer that is just making it has not set its version.
            return db.execute(query).fetchall() if version >= since else []
    except sqlite3.Error as error:
        raise ArchiveError(f"the catalogue in {root} cannot be read: {error}") from None
