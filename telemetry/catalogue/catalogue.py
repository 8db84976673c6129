"""The archive's catalogue: what of the archive is true, how far each producer is archived, and who may write.

Invariants:

- `commit` is one transaction of {committed lengths, each producer's progress, removed numbers, seen event ids,
  users to forget}, and it happens only while the caller's lease epoch is the one in the file.
- For every (producer, epoch): seq = archived + deduplicated + dead_lettered + erased + missing, and `removed` names
  the numbers of all but the first.
- A sealed file never grows again.

A `Catalogue` is used by one thread.
"""

from collections.abc import Sequence
from dataclasses import astuple
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from telemetry.batch import Position
from telemetry.catalogue.catalogue_file import ADD_REMOVED, Database
from telemetry.catalogue.commit import CatalogueChange, FileLength, Progress, RemovedRun, SeenKey
from telemetry.errors import ArchiveError, LeaseLostError
from telemetry.ids import uuid7
from telemetry.stream.namespace_owner import OwnerMark

# SQLite takes at least 250 variables in one statement.
_KEYS_PER_QUERY = 200
# So much of the archive's time may be lost when a consumer dies.
_CLOCK_STEP_S = 60


class Lease(NamedTuple):
    """Who may write: its epoch, holder ('' when nobody), heartbeat count, machine, and whether it has the file lock."""

    epoch: int
    holder: str
    beat: int
    machine: str
    locked: bool


class Catalogue:
    """The open catalogue.

    Args:
        root: The archive's directory; it exists.

    Raises:
        ArchiveError: The file cannot be opened or is of another version.

    Attributes:
        database: The open file, for what else is kept in it.
    """

    def __init__(self, root: Path) -> None:
        self.database = self._db = Database(root)
        self._sql = self._db.sql

    def close(self) -> None:
        """Close the file."""
        self._sql.close()

    def lease(self) -> Lease:
        """Read the lease row.

        Returns:
            What it says now.
        """
        with self._db.reading():
            row = self._sql.execute("SELECT epoch, holder, beat, machine, locked FROM lease").fetchone()
        return Lease(row[0], row[1], row[2], row[3], bool(row[4]))

    def take_lease(self, last: Lease, holder: str, machine: str, *, locked: bool) -> Lease | None:
        """Become the holder, unless the row has changed since it was read; what earlier holders wrote is sealed.

        Args:
            last: The row as it was read.
            holder: Our name.
            machine: Where we run.
            locked: Whether we have the file lock.

        Returns:
            Our lease, or None if somebody moved first.
        """
        with self._db.transaction():
            changed = self._sql.execute(
                "UPDATE lease SET epoch = epoch + 1, holder = ?, beat = beat + 1, machine = ?, locked = ?"
                " WHERE epoch = ? AND beat = ?",
                (holder, machine, locked, last.epoch, last.beat),
            ).rowcount
            if changed:
                self._sql.execute("UPDATE files SET sealed = 1 WHERE sealed = 0")
        return Lease(last.epoch + 1, holder, last.beat + 1, machine, locked) if changed else None

    def beat(self, lease_epoch: int, *, locked: bool) -> None:
        """Show that the holder lives.

        Args:
            lease_epoch: Our lease.
            locked: Whether we have the file lock by now.

        Raises:
            LeaseLostError: It is not ours any more.
        """
        with self._db.transaction():
            changed = self._sql.execute(
                "UPDATE lease SET beat = beat + 1, locked = ? WHERE epoch = ? AND holder <> ''", (locked, lease_epoch)
            ).rowcount
        if not changed:
            raise LeaseLostError("another consumer took the archive's lease")

    def release_lease(self, lease_epoch: int) -> None:
        """Let a successor start at once; does nothing if the lease is not ours.

        Args:
            lease_epoch: Our lease.
        """
        with self._db.transaction():
            self._sql.execute("UPDATE lease SET holder = '', beat = beat + 1 WHERE epoch = ?", (lease_epoch,))

    def mark(self) -> OwnerMark:
        """Read the archive's identity, and those in whose place it has come; the first call makes the identity.

        Returns:
            Its mark.
        """
        with self._db.reading():
            query = "SELECT value FROM settings WHERE name = 'mark'"
            found = self._sql.execute(query).fetchone()
            if found is None:
                self._sql.execute("INSERT OR IGNORE INTO settings VALUES ('mark', ?)", (uuid7(),))
                found = self._sql.execute(query).fetchone()
        mark = OwnerMark.parse(found[0])
        if mark is None:
            raise ArchiveError("the archive's catalogue has an empty mark")
        return mark

    def remember_mark(self, mark: OwnerMark) -> None:
        """Replace the mark: the archive comes in the place of others.

        Args:
            mark: Of the same archive.
        """
        with self._db.transaction():
            self._sql.execute("UPDATE settings SET value = ? WHERE name = 'mark'", (str(mark),))

    def setting(self, name: str) -> str | None:
        """Read one of the catalogue's settings.

        Args:
            name: Which one.

        Returns:
            Its value; None if it has none yet.
        """
        with self._db.reading():
            found = self._sql.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def remember(self, name: str, value: str) -> None:
        """Replace one of the catalogue's settings.

        Args:
            name: Which one.
            value: From now on.
        """
        with self._db.transaction():
            self._sql.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def watermarks(self) -> dict[str, Position]:
        """Read how far each producer is archived.

        Returns:
            The highest (epoch, seq) of each.
        """
        with self._db.reading():
            rows = self._sql.execute("SELECT producer, epoch, seq FROM progress ORDER BY producer, epoch").fetchall()
        return {producer: Position(epoch, seq) for producer, epoch, seq in rows}

    def progress(self) -> dict[tuple[str, int], Progress]:
        """Read the whole account.

        Returns:
            The totals of each (producer, epoch).
        """
        with self._db.reading():
            rows = self._sql.execute(
                "SELECT producer, epoch, seq, archived, deduplicated, dead_lettered, erased, missing, holes"
                " FROM progress"
            ).fetchall()
        return {(row[0], row[1]): Progress(*row[2:]) for row in rows}

    def removed(self) -> list[RemovedRun]:
        """Read which numbers are not archived lines.

        Returns:
            Runs, by producer and epoch.
        """
        with self._db.reading():
            rows = self._sql.execute(
                "SELECT producer, epoch, first_seq, last_seq, why, received_at FROM removed"
                " ORDER BY producer, epoch, first_seq"
            ).fetchall()
        return [RemovedRun(*row) for row in rows]

    def files(self, *, sealed: bool = False) -> dict[str, FileLength]:
        """Read the committed lengths.

        Args:
            sealed: Only of files that never grow again.

        Returns:
            By path relative to the archive.
        """
        with self._db.reading():
            rows = self._sql.execute(
                "SELECT path, bytes, lines FROM files WHERE sealed >= ? ORDER BY path", (int(sealed),)
            ).fetchall()
        return {path: FileLength(size_bytes, lines) for path, size_bytes, lines in rows}

    def seen(self, keys: Sequence[SeenKey]) -> dict[SeenKey, set[bytes]]:
        """Tell which events are remembered.

        Args:
            keys: (tenant, event_id) pairs.

        Returns:
            The fingerprints of those that are there.
        """
        found: dict[SeenKey, set[bytes]] = {}
        with self._db.reading():
            # One tenant at a time: SQLite answers a list of pairs by reading the whole table.
            for tenant, pairs in groupby(sorted(keys), key=itemgetter(0)):
                ids = [event_id for _, event_id in pairs]
                for start in range(0, len(ids), _KEYS_PER_QUERY):
                    some = ids[start : start + _KEYS_PER_QUERY]
                    marks = ",".join("?" * len(some))
                    rows = self._sql.execute(
                        f"SELECT event_id, fingerprint FROM seen WHERE tenant = ? AND event_id IN ({marks})",  # noqa: S608 - marks only
                        [tenant, *some],
                    )
                    for event_id, fingerprint in rows:
                        found.setdefault((tenant, event_id), set()).add(fingerprint)
        return found

    def commit(self, lease_epoch: int, change: CatalogueChange) -> None:
        """Make appended lines part of the archive, all of them or nothing.

        Args:
            lease_epoch: Our lease.
            change: What is added.

        Raises:
            LeaseLostError: The lease is not ours any more; nothing was changed.
            ArchiveError: The file cannot be written.
        """
        added = change.added
        with self._db.held(lease_epoch):
            if change.seal:
                self._sql.execute("UPDATE files SET sealed = 1 WHERE sealed = 0")
            self._sql.executemany(
                "INSERT INTO files (path, bytes, lines, sealed) VALUES (?, ?, ?, 0)"
                " ON CONFLICT (path) DO UPDATE SET bytes = excluded.bytes, lines = excluded.lines",
                [(path, *length) for path, length in change.files.items()],
            )
            self._sql.executemany(
                "INSERT INTO progress (producer, epoch, seq, archived, deduplicated, dead_lettered, erased, missing,"
                " holes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (producer, epoch) DO UPDATE SET"
                " seq = excluded.seq, archived = archived + excluded.archived,"
                " deduplicated = deduplicated + excluded.deduplicated,"
                " dead_lettered = dead_lettered + excluded.dead_lettered, erased = erased + excluded.erased,"
                " missing = missing + excluded.missing, holes = holes + excluded.holes",
                [(*key, *astuple(one)) for key, one in added.progress.items()],
            )
            self._sql.executemany(ADD_REMOVED, added.removed)
            self._sql.executemany(
                "INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                # In their order in the table, so that neighbours share a page.
                [(*one, change.now_s) for one in sorted(added.seen)],
            )
            self._sql.executemany(
                "INSERT INTO erasures (erase_id, user_id, user_digest, requested_at, events, files, models)"
                " VALUES (?, ?, ?, ?, 0, 0, 0) ON CONFLICT DO NOTHING",
                added.erasures,
            )
            self._sql.executemany(
                "DELETE FROM attempts WHERE producer = ? AND epoch = ? AND seq <= ?",
                [(*key, one.seq) for key, one in added.progress.items()],
            )

    def clock_s(self) -> int | None:
        """Read the archive's time.

        Returns:
            Seconds since 1970, as they were last kept; None for an archive that remembers nothing.
        """
        with self._db.reading():
            kept = self._sql.execute("SELECT value FROM settings WHERE name = 'clock'").fetchone()
            (newest,) = self._sql.execute("SELECT max(at_s) FROM seen").fetchone()
        return max((int(at_s) for at_s in (kept[0] if kept else None, newest) if at_s is not None), default=None)

    def keep_clock(self, lease_epoch: int, now_s: int) -> None:
        """Keep the archive's time, once a minute.

        Args:
            lease_epoch: Our lease.
            now_s: What it is now.
        """
        with self._db.transaction():
            self._sql.execute(
                "INSERT INTO settings SELECT 'clock', ? FROM lease WHERE epoch = ?"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
                " WHERE CAST(excluded.value AS INTEGER) >= CAST(value AS INTEGER) + ?",
                (str(now_s), lease_epoch, _CLOCK_STEP_S),
            )

    def expire_seen(self, lease_epoch: int, before_s: int, limit: int) -> int:
        """Forget old event ids, a few at a time so that no commit waits for it.

        Args:
            lease_epoch: Our lease.
            before_s: By the archive's time; what was seen earlier goes.
            limit: The most to forget now.

        Returns:
            How many were forgotten.
        """
        with self._db.transaction():
            return self._sql.execute(
                "DELETE FROM seen WHERE (tenant, event_id, fingerprint) IN"
                " (SELECT tenant, event_id, fingerprint FROM seen WHERE at_s < ? LIMIT ?)"
                " AND EXISTS (SELECT 1 FROM lease WHERE epoch = ?)",
                (before_s, limit, lease_epoch),
            ).rowcount
