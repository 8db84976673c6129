"""The SQLite file of the catalogue: connection, transactions and the fencing of writes.

Invariants:

- `lease_transaction` checks within the transaction that the caller's lease epoch is the one in the file, so a process
  that lost its lease changes nothing.
- With either of SQLite's journals (`journal_kind.py`) and `synchronous=FULL` a finished transaction survives a power
  cut, unless it is `unsynced`.

Used by one thread.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from telemetry.catalogue import journal_kind
from telemetry.catalogue.catalogue_schema import prepare
from telemetry.catalogue.journal_kind import JournalKind
from telemetry.errors import ArchiveError, CatalogueBusyError, LeaseLostError

FILE_NAME: Final = "catalogue.sqlite3"
# A number that is removed twice must not stop the archive; the audit reports it.
ADD_REMOVED: Final = "INSERT OR REPLACE INTO removed VALUES (?, ?, ?, ?, ?, ?)"
# SQLite takes at least 250 variables in one statement.
KEYS_PER_QUERY: Final = 200
# Writers hold the lock for milliseconds; a frozen one is a standby's to end (`standby.py`).
_BUSY_S: Final = 2.0
# A lock, or a lock that another process holds while it changes the shared memory.
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL)
# The event ids of a busy day exceed SQLite's default of 2 MB, and each commit looks them up.
_CACHE_KIB: Final = 32 * 1024


class Database:
    """The open file, made or upgraded if need be.

    Attributes:
        sql: The connection, in autocommit mode.
    """

    def __init__(self, root: Path) -> None:
        try:
            self.sql = sqlite3.connect(root / FILE_NAME, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise ArchiveError(f"The catalogue in {root} cannot be opened: {error}.") from None
        try:
            with self.errors_translated():
                kind = journal_kind.choose(journal_kind.stored_kind(self.sql), journal_kind.file_system_of(root))
                journal_kind.set_kind(self.sql, kind, root)
                self.sql.execute("PRAGMA synchronous=FULL")
                # An erased user's id must not linger in freed pages.
                self.sql.execute("PRAGMA secure_delete=ON")
                self.sql.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
                prepare(self.sql, root)
        except BaseException:
            self.sql.close()
            raise

    @contextmanager
    def errors_translated(self) -> Iterator[None]:
        """Raise `ArchiveError` for what SQLite raises, and `CatalogueBusyError` for a lock of another process."""
        try:
            yield
        except sqlite3.Error as error:
            # The low byte is the kind; the rest says more about it.
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY
            kind = CatalogueBusyError if busy else ArchiveError
            raise kind(f"The archive's catalogue failed: {error}.") from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run statements as one transaction, without a lease."""
        with self.errors_translated():
            self.sql.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.sql.execute("COMMIT")
            except BaseException:
                if self.sql.in_transaction:
                    self.sql.execute("ROLLBACK")
                raise

    @contextmanager
    def lease_transaction(self, lease_epoch: int) -> Iterator[None]:
        """Run statements as one transaction of the lease holder, which counts as a heartbeat.

        Raises:
            LeaseLostError: Another consumer holds the lease; nothing was changed.
        """
        with self.transaction():
            changed = self.sql.execute(
                "UPDATE lease SET beat = beat + 1 WHERE epoch = ? AND holder <> ''", (lease_epoch,)
            ).rowcount
            if not changed:
                raise LeaseLostError("Another consumer acquired the archive's lease.")
            yield

    @contextmanager
    def unsynced(self) -> Iterator[None]:
        """Do not sync the transactions within: they survive the process, but perhaps not a power cut."""
        self.sql.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            self.sql.execute("PRAGMA synchronous=FULL")

    def truncate_journal(self) -> None:
        """Move the content of a write-ahead journal into the file; while a reader is busy, leave it to a later call."""
        with self.errors_translated():
            self.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def change_journal(root: Path, kind: JournalKind | None = None) -> JournalKind:
    """Return the kind of journal that an archive's catalogue has, changed before if one is given.

    Raises:
        ArchiveError: There is no catalogue, another process uses it, or its file system admits no such journal.
    """
    path = root / FILE_NAME
    if not path.is_file():
        raise ArchiveError(f"There is no catalogue in {root} yet.")
    file_system = journal_kind.file_system_of(root)
    if kind == "write-ahead" and journal_kind.is_network(file_system):
        raise ArchiveError(f"{root} is on a network file system ({file_system}), which needs the rollback journal.")
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)) as db:
            if kind is not None:
                journal_kind.set_kind(db, kind, root)
            return journal_kind.stored_kind(db) or "write-ahead"
    except sqlite3.Error as error:
        raise ArchiveError(f"The journal of the catalogue in {root} cannot be changed: {error}.") from None


@contextmanager
def read_only(root: Path) -> Iterator[tuple[sqlite3.Connection, int] | None]:
    """Open an archive's catalogue in one read transaction, while a consumer may write.

    Yields:
        The connection and the catalogue's version; None if there is no catalogue yet.
    """
    catalogue = root / FILE_NAME
    if not catalogue.is_file():
        yield None
        return
    try:
        with closing(_begin_reading(catalogue)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            # A consumer that is making the file has not set its version.
            yield (db, int(version)) if version else None
    except sqlite3.Error as error:
        raise ArchiveError(f"The catalogue in {root} cannot be read: {error}.") from None


def _begin_reading(catalogue: Path) -> sqlite3.Connection:
    """Open a catalogue in a read transaction.

    After the death of a machine within a commit, its unfinished transaction is in the rollback journal, and has to be
    undone before anything can be read. SQLite does that in a connection that may write.

    Raises:
        sqlite3.Error: It cannot be read, or the transaction cannot be undone.
    """
    try:
        return _reading(catalogue)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
    with closing(sqlite3.connect(catalogue, timeout=_BUSY_S, isolation_level=None)) as db:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return _reading(catalogue)


def _reading(catalogue: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{catalogue.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("BEGIN")
        # The first statement that reads takes the lock, and finds what is unfinished.
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def query_catalogue(root: Path, query: str, since: int = 1) -> list[tuple[Any, ...]]:
    """Run one SELECT on an archive's catalogue.

    Args:
        since: The first version of the catalogue that has an answer.

    Returns:
        The rows; none if the catalogue is older or missing.
    """
    with read_only(root) as opened:
        return opened[0].execute(query).fetchall() if opened is not None and opened[1] >= since else []
