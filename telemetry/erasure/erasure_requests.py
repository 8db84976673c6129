"""Who is to be forgotten, in the catalogue: from the commit of the erase event until every line is gone.

Invariants:

- A file is replaced in one transaction of {its row, the account of the lines left out, the receipt's counts}, by
  the holder of the lease, and only while the row is as it was read and sealed.
- The user's id is in the clear only until the erasure is done; then its digest is all there is.
- An erase that found nothing is kept for the window of late events only, and of those a hundred thousand at
  most: ids that the archive has never seen cannot make it grow for ever.
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from telemetry.catalogue.catalogue_file import ADD_REMOVED, Database
from telemetry.catalogue.commit import ErasureRequest, FileLength, RemovedRun, add_run
from telemetry.erasure.erasure import LateEventFilter

AT_ONCE: Final = 10_000
# Of erases that found nothing; a client that may ask for an erase can make any number of them.
MOST_EMPTY: Final = 100_000
# So many at a time, so that no commit waits for long.
EXPIRED_AT_ONCE: Final = 200
# SQLite takes at least 250 variables in one statement.
_KEYS_PER_QUERY: Final = 200
_EMPTY: Final = "done_at IS NOT NULL AND events = 0 AND models = 0"


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
    removed: Sequence[RemovedRun]
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

    def open(self, after: ErasureRequest | None = None) -> list[ErasureRequest]:
        """Read which users are still to be erased.

        Args:
            after: The last one that was read, to go on behind it.

        Returns:
            The oldest first, `AT_ONCE` at most.
        """
        place = ("", "") if after is None else (after.requested_at, after.erase_id)
        with self._db.reading():
            rows = self._sql.execute(
                "SELECT erase_id, user_id, user_digest, requested_at FROM erasures WHERE done_at IS NULL"
                " AND (requested_at, erase_id) > (?, ?) ORDER BY requested_at, erase_id LIMIT ?",
                (*place, AT_ONCE),
            ).fetchall()
        return [ErasureRequest(*row) for row in rows]

    def forgotten(self, user_ids: Iterable[str], done_since: str) -> LateEventFilter:
        """Read which of these users' late events are not to be archived.

        Args:
            user_ids: Whose events came.
            done_since: Erasures done earlier than this do not count any more.

        Returns:
            The users among them that were erased, and when.
        """
        salt = self.salt()
        requested: dict[str, str] = {}
        with self._db.reading():
            (any_at_all,) = self._sql.execute(
                "SELECT EXISTS (SELECT 1 FROM erasures WHERE done_at IS NULL)"
                " OR EXISTS (SELECT 1 FROM erasures WHERE done_at >= ?)",
                (done_since,),
            ).fetchone()
            if not any_at_all:
                return LateEventFilter(salt, requested)
            key = bytes.fromhex(salt)
            digests = sorted({hmac.digest(key, user_id.encode(), "sha256").hex() for user_id in user_ids})
            for start in range(0, len(digests), _KEYS_PER_QUERY):
                some = digests[start : start + _KEYS_PER_QUERY]
                rows = self._sql.execute(
                    "SELECT user_digest, max(requested_at) FROM erasures"  # noqa: S608 - marks only
                    f" WHERE user_digest IN ({','.join('?' * len(some))})"
                    " AND (done_at IS NULL OR done_at >= ?) GROUP BY user_digest",
                    (*some, done_since),
                )
                requested.update(rows)
        return LateEventFilter(salt, requested)

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

    def finish(self, lease_epoch: int, models: Mapping[str, int], done_at: str) -> None:
        """Say that users are erased, and forget who they were.

        Args:
            lease_epoch: Our lease.
            models: By erase_id: how many published models the user was removed from.
            done_at: When, RFC 3339.

        Raises:
            LeaseLostError: The lease is not ours any more; nothing was changed.
        """
        with self._db.held(lease_epoch):
            self._sql.executemany(
                "UPDATE erasures SET done_at = ?, models = ?, user_id = NULL WHERE erase_id = ?",
                [(done_at, count, erase_id) for erase_id, count in models.items()],
            )
        self._db.empty_journal()

    def expire(self, lease_epoch: int, done_before: str, most: int = MOST_EMPTY) -> int:
        """Drop the receipts of erases that found nothing and that no late event can need any more.

        Args:
            lease_epoch: Our lease.
            done_before: Those done earlier go.
            most: Of the others the newest stay, as many as this.

        Returns:
            How many were dropped, `EXPIRED_AT_ONCE` at most: then there may be more.

        Raises:
            LeaseLostError: The lease is not ours any more; nothing was changed.
        """
        with self._db.reading():
            # No transaction where there is nothing to do, and no counting where that is not the question.
            (oldest,) = self._sql.execute(f"SELECT min(done_at) FROM erasures WHERE {_EMPTY}").fetchone()  # noqa: S608 - our own words
            is_old = oldest is not None and oldest < done_before
            count = most
            if oldest is not None and not is_old:
                (count,) = self._sql.execute(f"SELECT count(*) FROM erasures WHERE {_EMPTY}").fetchone()  # noqa: S608 - our own words
        at_once = EXPIRED_AT_ONCE if is_old else min(count - most, EXPIRED_AT_ONCE)
        if at_once <= 0:
            return 0
        with self._db.held(lease_epoch):
            return self._sql.execute(
                "DELETE FROM erasures WHERE erase_id IN"  # noqa: S608 - our own words
                f" (SELECT erase_id FROM erasures WHERE {_EMPTY} AND (done_at < ? OR ?) ORDER BY done_at LIMIT ?)",
                (done_before, not is_old, at_once),
            ).rowcount

    def _cut(self, run: RemovedRun) -> None:
        """Take numbers out of the rows of dead letters."""
        which = "WHERE producer = ? AND epoch = ? AND why = 'dead_lettered' AND first_seq <= ? AND last_seq >= ?"
        bounds = (run.producer, run.epoch, run.last_seq, run.first_seq)
        rows = self._sql.execute(f"SELECT * FROM removed {which}", bounds).fetchall()  # noqa: S608 - written above
        self._sql.execute(f"DELETE FROM removed {which}", bounds)  # noqa: S608 - written above
        left: list[RemovedRun] = []
        for row in map(RemovedRun._make, rows):
            for numbers in (range(row.first_seq, run.first_seq), range(run.last_seq + 1, row.last_seq + 1)):
                if numbers:
                    add_run(left, row.producer, row.epoch, numbers, row.why, row.received_at)
        self._sql.executemany(ADD_REMOVED, left)
