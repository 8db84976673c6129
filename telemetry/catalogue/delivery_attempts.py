"""How often a consumer began to handle an entry that a dead predecessor left behind.

An event may kill whoever handles it. So before an inherited entry is handled, that is counted; on the third
delivery each of its events is marked while it alone is handled, and whoever finds a mark of a dead process
has found the event that killed it.

Invariant: a mark is taken away as soon as its event is survived, so that only the event at hand is marked.
All of it is about the death of a process and need not survive a power cut.
"""

from typing import NamedTuple

from telemetry.batch import Position
from telemetry.catalogue.catalogue_file import Database


class Attempt(NamedTuple):
    """How often a consumer began to handle an entry, this time included, and the numbers that none survived."""

    times: int
    fatal: frozenset[int]


class Attempts:
    """The attempts in a catalogue.

    Args:
        database: The catalogue's file.
        run: Names this process; its own earlier attempts did not kill it.
    """

    def __init__(self, database: Database, run: str) -> None:
        self._db = database
        self._sql = database.sql
        self._run = run

    def begin(self, lease_epoch: int, producer: str, first: Position, last: Position) -> Attempt:
        """Note that a consumer begins to handle an entry that another one may have died of.

        Args:
            lease_epoch: Our lease.
            producer: Whose entry.
            first: The first event that is not archived yet.
            last: The entry's id.

        Returns:
            How often that happened, and the events of the entry that were marked by those who died.

        Raises:
            LeaseLostError: The lease is not ours any more.
        """
        with self._db.quick(), self._db.held(lease_epoch):
            self._sql.execute(
                "INSERT INTO attempts VALUES (?, ?, ?, 1, 1, ?) ON CONFLICT (producer, epoch, seq, of_entry) DO UPDATE"
                " SET times = times + 1, run = excluded.run WHERE run <> excluded.run",
                (producer, *last, self._run),
            )
            (times,) = self._sql.execute(
                "SELECT times FROM attempts WHERE producer = ? AND epoch = ? AND seq = ? AND of_entry = 1",
                (producer, *last),
            ).fetchone()
            fatal = self._sql.execute(
                "SELECT seq FROM attempts WHERE producer = ? AND epoch = ? AND seq BETWEEN ? AND ? AND of_entry = 0"
                " AND run <> ?",
                (producer, last.epoch, first.seq, last.seq, self._run),
            ).fetchall()
        return Attempt(times, frozenset(seq for (seq,) in fatal))

    def mark(self, lease_epoch: int, producer: str, event: Position, *, begun: bool) -> None:
        """Mark the one event that is handled now, or take the mark away when it is survived.

        Args:
            lease_epoch: Our lease.
            producer: Whose event.
            event: Which.
            begun: Whether it begins or is over.

        Raises:
            LeaseLostError: The lease is not ours any more.
        """
        statement = (
            "INSERT INTO attempts VALUES (?, ?, ?, 0, 1, ?) ON CONFLICT DO NOTHING"
            if begun
            else "DELETE FROM attempts WHERE producer = ? AND epoch = ? AND seq = ? AND of_entry = 0 AND run = ?"
        )
        with self._db.quick(), self._db.held(lease_epoch):
            self._sql.execute(statement, (producer, *event, self._run))
