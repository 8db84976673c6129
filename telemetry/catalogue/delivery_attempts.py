"""Counts how often consumers began to handle an entry that a dead consumer left pending.

An event may kill each process that handles it. An inherited entry is therefore counted before it is handled; on the
third delivery each of its events is marked while it alone is handled. A mark of a dead process names the fatal event.

Invariant: the mark is removed as soon as the process has survived the event, so at most one event is marked. Attempts
concern the deaths of processes and need not survive a power cut.
"""

from typing import NamedTuple

from telemetry.batch import Position
from telemetry.catalogue.catalogue_file import Database


class DeliveryAttempt(NamedTuple):
    """How often a consumer began to handle an entry, this time included, and the seqs that no consumer survived."""

    times: int
    fatal: frozenset[int]


def begin_attempt(
    database: Database, lease_epoch: int, run_id: str, producer: str, first: Position, last: Position
) -> DeliveryAttempt:
    """Count that a consumer begins to handle an entry that may have killed another one.

    Args:
        run_id: Names the calling process: its own earlier attempts did not kill it.
        first: The first event that is not archived yet.
        last: The entry's id.
    """
    sql = database.sql
    with database.unsynced(), database.lease_transaction(lease_epoch):
        sql.execute(
            "INSERT INTO attempts VALUES (?, ?, ?, 1, 1, ?) ON CONFLICT (producer, epoch, seq, of_entry) DO UPDATE"
            " SET times = times + 1, run = excluded.run WHERE run <> excluded.run",
            (producer, *last, run_id),
        )
        (times,) = sql.execute(
            "SELECT times FROM attempts WHERE producer = ? AND epoch = ? AND seq = ? AND of_entry = 1",
            (producer, *last),
        ).fetchone()
        fatal = sql.execute(
            "SELECT seq FROM attempts WHERE producer = ? AND epoch = ? AND seq BETWEEN ? AND ? AND of_entry = 0"
            " AND run <> ?",
            (producer, last.epoch, first.seq, last.seq, run_id),
        ).fetchall()
    return DeliveryAttempt(times, frozenset(seq for (seq,) in fatal))


def begin_event(database: Database, lease_epoch: int, run_id: str, producer: str, event: Position) -> None:
    """Store that an event is handled now; raises LeaseLostError."""
    with database.unsynced(), database.lease_transaction(lease_epoch):
        database.sql.execute(
            "INSERT INTO attempts VALUES (?, ?, ?, 0, 1, ?) ON CONFLICT DO NOTHING", (producer, *event, run_id)
        )


def end_event(database: Database, lease_epoch: int, run_id: str, producer: str, event: Position) -> None:
    """Store that the process survived an event; raises LeaseLostError."""
    with database.unsynced(), database.lease_transaction(lease_epoch):
        database.sql.execute(
            "DELETE FROM attempts WHERE producer = ? AND epoch = ? AND seq = ? AND of_entry = 0 AND run = ?",
            (producer, *event, run_id),
        )
