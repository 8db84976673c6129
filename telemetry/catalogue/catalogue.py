"""The archive's catalogue: committed lengths, how far each producer is archived, and which events were seen.

Invariants: `commit` is one transaction, and happens only under the caller's lease. For every (producer, epoch)
seq = archived + deduplicated + dead_lettered + erased + missing, and `removed` names the seqs of all but the first. A
sealed file never grows again.

Used by one thread.
"""

from collections.abc import Sequence
from dataclasses import astuple
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

from telemetry.batch import Position
from telemetry.catalogue.catalogue_file import ADD_REMOVED, KEYS_PER_QUERY, Database
from telemetry.catalogue.commit import CatalogueChange, FileLength, SeenKey
from telemetry.catalogue.lease import LeaseTable
from telemetry.errors import ArchiveError
from telemetry.failpoints import Failpoints
from telemetry.ids import uuid7
from telemetry.stream.namespace_owner import OwnerMark

# The most of the archive's time that is lost when a consumer dies.
_CLOCK_STEP_S: Final = 60


class Catalogue:
    """The open catalogue.

    Args:
        failpoints: Those of a drill.

    Attributes:
        database: The open file.
        lease: Its lease row.
    """

    def __init__(self, root: Path, failpoints: Failpoints | None = None) -> None:
        self._failpoints = failpoints or Failpoints()
        self.database = Database(root)
        self.lease = LeaseTable(self.database)
        self._sql = self.database.sql

    def close(self) -> None:
        """Close the file."""
        self._sql.close()

    def load_or_create_mark(self) -> OwnerMark:
        """Read the archive's identity and those it replaces; the first call makes the identity."""
        found = self.setting("mark")
        if found is None:
            with self.database.errors_translated():
                self._sql.execute("INSERT OR IGNORE INTO settings VALUES ('mark', ?)", (uuid7(),))
            found = self.setting("mark")
        mark = OwnerMark.parse(found or "")
        if mark is None:
            raise ArchiveError("The archive's catalogue has an empty mark.")
        return mark

    def setting(self, name: str) -> str | None:
        """Read a row of the settings table; None if it has no value yet."""
        with self.database.errors_translated():
            found = self._sql.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def set_setting(self, name: str, value: str) -> None:
        """Write a row of the settings table."""
        with self.database.transaction():
            self._sql.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def watermarks(self) -> dict[str, Position]:
        """Read how far each producer is archived."""
        with self.database.errors_translated():
            rows = self._sql.execute("SELECT producer, epoch, seq FROM progress ORDER BY producer, epoch").fetchall()
        return {producer: Position(epoch, seq) for producer, epoch, seq in rows}

    def files(self, *, sealed: bool = False) -> dict[str, FileLength]:
        """Read the committed lengths, by path relative to the archive; on request only of sealed files."""
        with self.database.errors_translated():
            rows = self._sql.execute(
                "SELECT path, bytes, lines FROM files WHERE sealed >= ? ORDER BY path", (int(sealed),)
            ).fetchall()
        return {path: FileLength(size_bytes, lines) for path, size_bytes, lines in rows}

    def seen_fingerprints(self, keys: Sequence[SeenKey]) -> dict[SeenKey, set[bytes]]:
        """Read the fingerprints of seen events; unknown ones are left out."""
        found: dict[SeenKey, set[bytes]] = {}
        with self.database.errors_translated():
            # One tenant at a time: SQLite answers a list of pairs by reading the whole table.
            for tenant, pairs in groupby(sorted(keys), key=itemgetter(0)):
                ids = [event_id for _, event_id in pairs]
                for start in range(0, len(ids), KEYS_PER_QUERY):
                    some = ids[start : start + KEYS_PER_QUERY]
                    marks = ",".join("?" * len(some))
                    rows = self._sql.execute(
                        f"SELECT event_id, fingerprint FROM seen WHERE tenant = ? AND event_id IN ({marks})",  # noqa: S608 - marks only
                        [tenant, *some],
                    )
                    for event_id, fingerprint in rows:
                        found.setdefault((tenant, event_id), set()).add(fingerprint)
        return found

    def commit(self, lease_epoch: int, change: CatalogueChange) -> None:
        """Make appended lines part of the archive, all of them or nothing."""
        added = change.added
        with self.database.lease_transaction(lease_epoch):
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
                # In the order of the table, so that neighbours share a page.
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
            self._failpoints.hit("consumer.committing")

    def clock_s(self) -> int | None:
        """Read the archive's time as last stored, in seconds since 1970; None for a new archive."""
        with self.database.errors_translated():
            (newest,) = self._sql.execute("SELECT max(at_s) FROM seen").fetchone()
        return max((int(at_s) for at_s in (self.setting("clock"), newest) if at_s is not None), default=None)

    def store_clock(self, lease_epoch: int, now_s: int) -> None:
        """Store the archive's time, at most once a minute; does nothing without the lease."""
        with self.database.transaction():
            self._sql.execute(
                "INSERT INTO settings SELECT 'clock', ? FROM lease WHERE epoch = ?"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
                " WHERE CAST(excluded.value AS INTEGER) >= CAST(value AS INTEGER) + ?",
                (str(now_s), lease_epoch, _CLOCK_STEP_S),
            )

    def expire_seen(self, lease_epoch: int, before_s: int, limit: int) -> int:
        """Delete old seen events, a few at a time so that no commit waits for it.

        Args:
            before_s: By the archive's time; events seen earlier are deleted.

        Returns:
            How many were deleted; 0 without the lease.
        """
        with self.database.transaction():
            return self._sql.execute(
                "DELETE FROM seen WHERE (tenant, event_id, fingerprint) IN"
                " (SELECT tenant, event_id, fingerprint FROM seen WHERE at_s < ? LIMIT ?)"
                " AND EXISTS (SELECT 1 FROM lease WHERE epoch = ?)",
                (before_s, limit, lease_epoch),
            ).rowcount
