"""The archive's catalogue: one SQLite file that says what of the archive is true.

Invariants:

- `commit` is one transaction of {committed lengths, each producer's progress, seen event ids}, and it
  happens only while the caller's lease epoch is the one in the file. So a zombie cannot commit.
- For every (producer, epoch): seq = archived + deduplicated + dead_lettered + missing.

Write-ahead journal, `synchronous=FULL`: what `commit` returned from survives a power cut. A `Catalogue` is
used by one thread.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from telemetry.batch import Position
from telemetry.errors import ArchiveError, LeaseLostError

FILE_NAME: Final = "catalogue.sqlite3"
_VERSION = 1
# A writer of ours holds the lock for milliseconds; a frozen one must not hold us for ever.
_BUSY_S = 2.0
# The catalogue is small; SQLite takes at least 250 variables in one statement.
_KEYS_PER_QUERY = 100

_SCHEMA = """
CREATE TABLE IF NOT EXISTS lease (
  id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL, holder TEXT NOT NULL, beat INTEGER NOT NULL,
  machine TEXT NOT NULL, locked INTEGER NOT NULL
);
INSERT OR IGNORE INTO lease VALUES (1, 0, '', 0, '', 0);
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, lines INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS progress (
  producer TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, archived INTEGER NOT NULL,
  deduplicated INTEGER NOT NULL, dead_lettered INTEGER NOT NULL, missing INTEGER NOT NULL, holes INTEGER NOT NULL,
  PRIMARY KEY (producer, epoch)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (
  tenant TEXT NOT NULL, event_id TEXT NOT NULL, at_s INTEGER NOT NULL, PRIMARY KEY (tenant, event_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_at ON seen (at_s);
"""

SeenKey: TypeAlias = tuple[str, str]


class Lease(NamedTuple):
    """Who may write: its epoch, holder ('' when nobody), heartbeat count, machine, and whether it has the file lock."""

    epoch: int
    holder: str
    beat: int
    machine: str
    locked: bool


@dataclass(slots=True)
class Progress:
    """What a commit adds to one (producer, epoch), and the number it then reaches."""

    seq: int
    archived: int = 0
    deduplicated: int = 0
    dead_lettered: int = 0
    missing: int = 0
    holes: int = 0


class FileLength(NamedTuple):
    """A file's committed length, and how many lines that is."""

    size_bytes: int
    lines: int


@dataclass(slots=True)
class Change:
    """One transaction: lengths by path relative to the archive, progress, and event ids to remember."""

    files: Mapping[str, FileLength] = field(default_factory=dict)
    progress: Mapping[tuple[str, int], Progress] = field(default_factory=dict)
    seen: Sequence[SeenKey] = ()
    now_s: int = 0


class Catalogue:
    """The open catalogue.

    Args:
        root: The archive's directory; it exists.

    Raises:
        ArchiveError: The file cannot be opened or is of another version.
    """

    def __init__(self, root: Path) -> None:
        try:
            self._db = sqlite3.connect(root / FILE_NAME, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise ArchiveError(f"the catalogue in {root} cannot be opened: {error}") from None
        try:
            self._prepare(root)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, root: Path) -> None:
        with _translated():
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                # Two consumers may start at once: whoever is second finds everything there.
                self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
            elif version != _VERSION:
                raise ArchiveError(f"the catalogue in {root} is of version {version}; this program knows {_VERSION}")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def lease(self) -> Lease:
        """Read the lease row.

        Returns:
            What it says now.
        """
        with _translated():
            row = self._db.execute("SELECT epoch, holder, beat, machine, locked FROM lease").fetchone()
        return Lease(row[0], row[1], row[2], row[3], bool(row[4]))

    def take_lease(self, last: Lease, holder: str, machine: str, *, locked: bool) -> Lease | None:
        """Become the holder, unless the row has changed since it was read.

        Args:
            last: The row as it was read.
            holder: Our name.
            machine: Where we run.
            locked: Whether we have the file lock.

        Returns:
            Our lease, or None if somebody moved first.
        """
        with self._transaction():
            changed = self._db.execute(
                "UPDATE lease SET epoch = epoch + 1, holder = ?, beat = beat + 1, machine = ?, locked = ?"
                " WHERE epoch = ? AND beat = ?",
                (holder, machine, locked, last.epoch, last.beat),
            ).rowcount
        return Lease(last.epoch + 1, holder, last.beat + 1, machine, locked) if changed else None

    def beat(self, lease_epoch: int, *, locked: bool) -> None:
        """Show that the holder lives.

        Args:
            lease_epoch: Our lease.
            locked: Whether we have the file lock by now.

        Raises:
            LeaseLostError: It is not ours any more.
        """
        with self._transaction():
            changed = self._db.execute(
                "UPDATE lease SET beat = beat + 1, locked = ? WHERE epoch = ? AND holder <> ''", (locked, lease_epoch)
            ).rowcount
        if not changed:
            raise LeaseLostError("another consumer took the archive's lease")

    def release_lease(self, lease_epoch: int) -> None:
        """Let a successor start at once; does nothing if the lease is not ours.

        Args:
            lease_epoch: Our lease.
        """
        with self._transaction():
            self._db.execute("UPDATE lease SET holder = '', beat = beat + 1 WHERE epoch = ?", (lease_epoch,))

    def watermarks(self) -> dict[str, Position]:
        """Read how far each producer is archived.

        Returns:
            The highest (epoch, seq) of each.
        """
        with _translated():
            rows = self._db.execute("SELECT producer, epoch, seq FROM progress ORDER BY producer, epoch").fetchall()
        return {producer: Position(epoch, seq) for producer, epoch, seq in rows}

    def progress(self) -> dict[tuple[str, int], Progress]:
        """Read the whole account.

        Returns:
            The totals of each (producer, epoch).
        """
        with _translated():
            rows = self._db.execute(
                "SELECT producer, epoch, seq, archived, deduplicated, dead_lettered, missing, holes FROM progress"
            ).fetchall()
        return {(row[0], row[1]): Progress(*row[2:]) for row in rows}

    def files(self) -> dict[str, FileLength]:
        """Read the committed lengths.

        Returns:
            By path relative to the archive.
        """
        with _translated():
            rows = self._db.execute("SELECT path, bytes, lines FROM files ORDER BY path").fetchall()
        return {path: FileLength(size_bytes, lines) for path, size_bytes, lines in rows}

    def seen(self, keys: Sequence[SeenKey]) -> set[SeenKey]:
        """Tell which event ids are remembered.

        Args:
            keys: (tenant, event_id) pairs.

        Returns:
            Those that are there.
        """
        found: set[SeenKey] = set()
        with _translated():
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                some = keys[start : start + _KEYS_PER_QUERY]
                marks = ",".join(["(?,?)"] * len(some))
                found.update(
                    self._db.execute(
                        f"SELECT tenant, event_id FROM seen WHERE (tenant, event_id) IN (VALUES {marks})",  # noqa: S608 - marks only
                        [part for key in some for part in key],
                    )
                )
        return found

    def commit(self, lease_epoch: int, change: Change) -> None:
        """Make appended lines part of the archive, all of them or nothing.

        Args:
            lease_epoch: Our lease.
            change: Lengths, progress and event ids.

        Raises:
            LeaseLostError: The lease is not ours any more; nothing was changed.
            ArchiveError: The file cannot be written.
        """
        with self._transaction():
            changed = self._db.execute(
                "UPDATE lease SET beat = beat + 1 WHERE epoch = ? AND holder <> ''", (lease_epoch,)
            ).rowcount
            if not changed:
                raise LeaseLostError("another consumer took the archive's lease")
            self._db.executemany(
                "INSERT INTO files VALUES (?, ?, ?)"
                " ON CONFLICT (path) DO UPDATE SET bytes = excluded.bytes, lines = excluded.lines",
                [(path, *length) for path, length in change.files.items()],
            )
            self._db.executemany(
                "INSERT INTO progress VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (producer, epoch) DO UPDATE SET"
                " seq = excluded.seq, archived = archived + excluded.archived,"
                " deduplicated = deduplicated + excluded.deduplicated,"
                " dead_lettered = dead_lettered + excluded.dead_lettered,"
                " missing = missing + excluded.missing, holes = holes + excluded.holes",
                [
                    (*key, one.seq, one.archived, one.deduplicated, one.dead_lettered, one.missing, one.holes)
                    for key, one in change.progress.items()
                ],
            )
            self._db.executemany(
                "INSERT INTO seen VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [(*key, change.now_s) for key in change.seen],
            )

    def expire_seen(self, lease_epoch: int, before_s: int, limit: int) -> int:
        """Forget old event ids, a few at a time so that no commit waits for it.

        Args:
            lease_epoch: Our lease.
            before_s: Unix seconds; what was seen earlier goes.
            limit: The most to forget now.

        Returns:
            How many were forgotten.
        """
        with self._transaction():
            return self._db.execute(
                "DELETE FROM seen WHERE (tenant, event_id) IN"
                " (SELECT tenant, event_id FROM seen WHERE at_s < ? LIMIT ?)"
                " AND EXISTS (SELECT 1 FROM lease WHERE epoch = ?)",
                (before_s, limit, lease_epoch),
            ).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise ArchiveError(f"the archive's catalogue failed: {error}") from None
