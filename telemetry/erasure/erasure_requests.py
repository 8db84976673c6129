"""Erasure requests in the catalogue, from the commit of the erase event until every line is erased.

Invariants: a file is replaced in one transaction of {its row, the counts of the lines left out, the receipt's counts},
only while the row is sealed and unchanged. The user's id is in the clear only until the erasure is done. An erasure
that found nothing is kept for the window of late events, and of those `MAX_EMPTY` at most: unknown ids fill no disk.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from telemetry.catalogue.catalogue_file import ADD_REMOVED, KEYS_PER_QUERY, Database
from telemetry.catalogue.commit import ErasureRequest, FileLength, RemovedRun, add_run
from telemetry.erasure.erasure import LateEventFilter, digest_of

REQUESTS_PER_READ: Final = 10_000
# A permitted client can send any number of requests that find nothing.
MAX_EMPTY: Final = 100_000
# Few at a time, so that no commit waits long.
EXPIRED_PER_CALL: Final = 200
_EMPTY: Final = "done_at IS NOT NULL AND events = 0 AND models = 0"


class Replacement(NamedTuple):
    """A sealed file to be replaced by one without some lines.

    Attributes:
        old: Path and committed length of the file that was read.
        new: Path and length of the file that was written instead.
        removed: The sequence numbers of the lines left out.
        dead_letters: Whether the lines are dead letters, whose sequence numbers were removed before.
        erased: Lines left out by erase_id.
    """

    old: tuple[str, FileLength]
    new: tuple[str, FileLength]
    removed: Sequence[RemovedRun]
    dead_letters: bool
    erased: dict[str, int]


def open_requests(database: Database, after: ErasureRequest | None = None) -> list[ErasureRequest]:
    """Read which users are still to be erased, the oldest request first, `REQUESTS_PER_READ` at most.

    Args:
        after: The last request of the previous read, to continue behind it.
    """
    key = ("", "") if after is None else (after.requested_at, after.erase_id)
    with database.errors_translated():
        rows = database.sql.execute(
            "SELECT erase_id, user_id, user_digest, requested_at FROM erasures WHERE done_at IS NULL"
            " AND (requested_at, erase_id) > (?, ?) ORDER BY requested_at, erase_id LIMIT ?",
            (*key, REQUESTS_PER_READ),
        ).fetchall()
    return [ErasureRequest(*row) for row in rows]


def late_event_filter(database: Database, user_ids: Iterable[str], done_since: str) -> LateEventFilter:
    """Read which of some users were erased.

    Args:
        user_ids: The users of events that are about to be archived.
        done_since: Erasures done earlier, RFC 3339, do not count any more.
    """
    sql = database.sql
    requested: dict[str, str] = {}
    with database.errors_translated():
        (salt,) = sql.execute("SELECT value FROM settings WHERE name = 'salt'").fetchone()
        (any_at_all,) = sql.execute(
            "SELECT EXISTS (SELECT 1 FROM erasures WHERE done_at IS NULL)"
            " OR EXISTS (SELECT 1 FROM erasures WHERE done_at >= ?)",
            (done_since,),
        ).fetchone()
        # Digests cost more than the query, so they are computed only if an erasure can apply.
        digests = sorted({digest_of(salt, user_id) for user_id in user_ids}) if any_at_all else []
        for start in range(0, len(digests), KEYS_PER_QUERY):
            some = digests[start : start + KEYS_PER_QUERY]
            rows = sql.execute(
                "SELECT user_digest, max(requested_at) FROM erasures"  # noqa: S608 - marks only
                f" WHERE user_digest IN ({','.join('?' * len(some))})"
                " AND (done_at IS NULL OR done_at >= ?) GROUP BY user_digest",
                (*some, done_since),
            )
            requested.update(rows)
    return LateEventFilter(salt, requested)


def replace_file(database: Database, lease_epoch: int, replacement: Replacement) -> bool:
    """Replace a sealed file.

    Returns:
        Whether it was done; another process may have replaced the old file since it was read.
    """
    sql = database.sql
    old_path, old = replacement.old
    new_path, new = replacement.new
    with database.lease_transaction(lease_epoch):
        gone = sql.execute(
            "DELETE FROM files WHERE path = ? AND bytes = ? AND lines = ? AND sealed = 1", (old_path, *old)
        ).rowcount
        if not gone:
            return False
        sql.execute("INSERT INTO files (path, bytes, lines, sealed) VALUES (?, ?, ?, 1)", (new_path, *new))
        source = "dead_lettered" if replacement.dead_letters else "archived"
        sql.executemany(
            f"UPDATE progress SET {source} = {source} - ?, erased = erased + ? WHERE producer = ? AND epoch = ?",  # noqa: S608 - one of two names
            [(run.size, run.size, run.producer, run.epoch) for run in replacement.removed],
        )
        if replacement.dead_letters:
            for run in replacement.removed:
                _cut_dead_lettered(database, run)
        sql.executemany(ADD_REMOVED, replacement.removed)
        sql.executemany(
            "UPDATE erasures SET events = events + ?, files = files + 1 WHERE erase_id = ?",
            [(count, erase_id) for erase_id, count in replacement.erased.items()],
        )
    return True


def finish_requests(database: Database, lease_epoch: int, models: Mapping[str, int], done_at: str) -> None:
    """Store that users are erased, and delete their ids.

    Args:
        models: By erase_id: from how many published models the user was removed.
    """
    with database.lease_transaction(lease_epoch):
        database.sql.executemany(
            "UPDATE erasures SET done_at = ?, models = ?, user_id = NULL WHERE erase_id = ?",
            [(done_at, count, erase_id) for erase_id, count in models.items()],
        )
    # SQLite's journal has the ids, too.
    database.truncate_journal()


def expire_requests(database: Database, lease_epoch: int, done_before: str, max_empty: int = MAX_EMPTY) -> int:
    """Delete the receipts of erasures that found nothing and that no late event can need any more.

    Args:
        done_before: Those done earlier, RFC 3339, are deleted.
        max_empty: How many of the others are kept, the newest first.

    Returns:
        How many were deleted, `EXPIRED_PER_CALL` at most: then there may be more.
    """
    sql = database.sql
    with database.errors_translated():
        # No transaction where there is nothing to do, and no counting where age decides.
        (oldest,) = sql.execute(f"SELECT min(done_at) FROM erasures WHERE {_EMPTY}").fetchone()  # noqa: S608 - a constant
        is_old = oldest is not None and oldest < done_before
        count = max_empty
        if oldest is not None and not is_old:
            (count,) = sql.execute(f"SELECT count(*) FROM erasures WHERE {_EMPTY}").fetchone()  # noqa: S608 - a constant
    limit = EXPIRED_PER_CALL if is_old else min(count - max_empty, EXPIRED_PER_CALL)
    if limit <= 0:
        return 0
    with database.lease_transaction(lease_epoch):
        return sql.execute(
            "DELETE FROM erasures WHERE erase_id IN"  # noqa: S608 - a constant
            f" (SELECT erase_id FROM erasures WHERE {_EMPTY} AND (done_at < ? OR ?) ORDER BY done_at LIMIT ?)",
            (done_before, not is_old, limit),
        ).rowcount


def _cut_dead_lettered(database: Database, run: RemovedRun) -> None:
    """Cut a run out of the rows of dead letters."""
    which = "WHERE producer = ? AND epoch = ? AND why = 'dead_lettered' AND first_seq <= ? AND last_seq >= ?"
    bounds = (run.producer, run.epoch, run.last_seq, run.first_seq)
    rows = database.sql.execute(f"SELECT * FROM removed {which}", bounds).fetchall()  # noqa: S608 - a constant
    database.sql.execute(f"DELETE FROM removed {which}", bounds)  # noqa: S608 - a constant
    left: list[RemovedRun] = []
    for row in map(RemovedRun._make, rows):
        for seqs in (range(row.first_seq, run.first_seq), range(run.last_seq + 1, row.last_seq + 1)):
            if seqs:
                add_run(left, row.producer, row.epoch, seqs, row.why, row.received_at)
    database.sql.executemany(ADD_REMOVED, left)
