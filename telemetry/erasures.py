"""Who is to be forgotten, in the catalogue: from the commit of the erase event until every line is gone.

Invariants:

- A file is replaced in one transaction of {its row, the account of the lines left out, the receipt's counts}, by
  the holder of the lease, and only while the row is as it was read and sealed.
- The user's id is in the clear only until the erasure is done; then its digest is all there is.
"""

from collections.abc import Sequence
from typing import NamedTuple

from telemetry.account import Erasure, FileLength, Removed, remove
from telemetry.database import ADD_REMOVED, Database


class Replacement(NamedTuple):
    """A sealed file to be replaced by one without some lines.

    Attributes:
        old: Path and committed length of what was read.
        new: Path and length of what was written instead.
        removed: The numbers of the lines left out.
        letters: Whether they are dead letters, so that their numbers were removed already.
        erased: Lines left out by erase_id.
    """

    old: tuple[str, FileLength]
    new: tuple[str, FileLength]
    removed: Sequence[Removed]
    letters: bool
    erased: dict[str, int]


class Erasures:
    """The erasures in a catalogue.

    Args:
        database: The catalogue's file.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._sql = database.sql

    def salt(self) -> str:
        """Read the key of the users' digests.

        Returns:
            Hexadecimal digits.
        """
        with self._db.reading():
            (salt,) = self._sql.execute("SELECT value FROM settings WHERE name = 'salt'").fetchone()
        return str(salt)

    def open(self) -> list[Erasure]:
        """Read who is still to be forgotten.

        Returns:
            The oldest first.
        """
        with self._db.reading():
            rows = self._sql.execute(
                "SELECT erase_id, user_id, user_digest, requested_at FROM erasures WHERE done_at IS NULL"
                " ORDER BY requested_at, erase_id"
            ).fetchall()
        return [Erasure(*row) for row in rows]

    def forgotten(self, done_since: str) -> dict[str, str]:
        """Read whose late events are not to be archived.

        Args:
            done_since: Erasures done earlier than this do not count any more.

        Returns:
            By the user's digest: when the last erase was requested.
        """
        with self._db.reading():
            return dict(
                self._sql.execute(
                    "SELECT user_digest, max(requested_at) FROM erasures"
                    " WHERE done_at IS NULL OR done_at >= ? GROUP BY user_digest",
                    (done_since,),
                ).fetchall()
            )

    def replace(self, lease_epoch: int, replacement: Replacement) -> bool:
        """Put a file in the place of a sealed one.

        Args:
            lease_epoch: Our lease.
            replacement: Both files, and what the new one lacks.

        Returns:
            Whether it was done; the old file may have been replaced by somebody else since it was read.

        Raises:
            LeaseLostError: The lease is not ours any more; nothing was changed.
        """
        old_path, old = replacement.old
        new_path, new = replacement.new
        with self._db.held(lease_epoch):
            gone = self._sql.execute(
                "DELETE FROM files WHERE path = ? AND bytes = ? AND lines = ? AND sealed = 1", (old_path, *old)
            ).rowcount
            if not gone:
                return False
            self._sql.execute("INSERT INTO files (path, bytes, lines, sealed) VALUES (?, ?, ?, 1)", (new_path, *new))
            source = "dead_lettered" if replacement.letters else "archived"
            self._sql.executemany(
                f"UPDATE progress SET {source} = {source} - ?, erased = erased + ? WHERE producer = ? AND epoch = ?",  # noqa: S608 - one of two names
                [
                    (run.last_seq - run.first_seq + 1, run.last_seq - run.first_seq + 1, run.producer, run.epoch)
                    for run in replacement.removed
                ],
            )
            if replacement.letters:
                for run in replacement.removed:
                    self._cut(run)
            self._sql.executemany(ADD_REMOVED, replacement.removed)
            self._sql.executemany(
                "UPDATE erasures SET events = events + ?, files = files + 1 WHERE erase_id = ?",
                [(count, erase_id) for erase_id, count in replacement.erased.items()],
            )
        return True

    def finish(self, lease_epoch: int, erase_id: str, done_at: str, models: int) -> None:
        """Say that a user is forgotten, and forget who it was.

        Args:
            lease_epoch: Our lease.
            erase_id: Which erase.
            done_at: When, RFC 3339.
            models: How many published models the user was removed from.

        Raises:
            LeaseLostError: The lease is not ours any more; nothing was changed.
        """
        with self._db.held(lease_epoch):
            self._sql.execute(
                "UPDATE erasures SET done_at = ?, models = ?, user_id = NULL WHERE erase_id = ?",
                (done_at, models, erase_id),
            )
        self._db.empty_journal()

    def _cut(self, run: Removed) -> None:
        """Take numbers out of the rows of dead letters."""
        which = "WHERE producer = ? AND epoch = ? AND why = 'dead_lettered' AND first_seq <= ? AND last_seq >= ?"
        bounds = (run.producer, run.epoch, run.last_seq, run.first_seq)
        rows = self._sql.execute(f"SELECT * FROM removed {which}", bounds).fetchall()  # noqa: S608 - written above
        self._sql.execute(f"DELETE FROM removed {which}", bounds)  # noqa: S608 - written above
        left: list[Removed] = []
        for row in map(Removed._make, rows):
            for numbers in (range(row.first_seq, run.first_seq), range(run.last_seq + 1, row.last_seq + 1)):
                if numbers:
                    remove(left, row.producer, row.epoch, numbers, row.why, row.received_at)
        self._sql.executemany(ADD_REMOVED, left)
