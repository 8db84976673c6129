"""Retention: which dates of an archive are removed, and what is kept about their events.

Invariants: only whole past dates of which no file grows are removed, by age every such date, by size only compacted
ones, the oldest first. Their files leave the catalogue in one transaction with the sequence numbers of their lines,
which are `retired` from then on, so an audit still adds up. A file that differs from the catalogue stays for the audit.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from telemetry.archive.archive_files import DATE_PREFIX, committed_lines, date_of
from telemetry.archive.parquet_file import SUFFIX, read_positions
from telemetry.batch import EventPosition
from telemetry.catalogue.catalogue_file import Database, query_catalogue
from telemetry.catalogue.commit import FileLength
from telemetry.errors import ArchiveError, BadEventError
from telemetry.events import position_of


class DueDates(NamedTuple):
    """The UTC dates to remove, oldest first, and how many bytes too large the archive then still is."""

    days: list[str]
    excess_bytes: int


class RetiredRun(NamedTuple):
    """A run of sequence numbers whose lines were archived under a UTC date and are removed."""

    producer: str
    epoch: int
    first_seq: int
    last_seq: int
    day: str

    @property
    def size(self) -> int:
        """How many sequence numbers it covers."""
        return self.last_seq - self.first_seq + 1


def due_dates(
    lengths: Mapping[str, FileLength], growing: Collection[str], today: str, max_days: int, max_bytes: int
) -> DueDates:
    """Decide which dates are removed (pure).

    Args:
        lengths: All files of the archive.
        growing: Those that may still grow.
        today: The UTC date.
        max_days: How many dates before today are kept; 0 for all.
        max_bytes: How large the archive may be; 0 for any size.
    """
    days: dict[str, dict[str, FileLength]] = {}
    for path, length in lengths.items():
        if path.startswith(DATE_PREFIX):
            days.setdefault(date_of(path), {})[path] = length
    open_files = set(growing)
    past = [day for day in sorted(days) if day < today and open_files.isdisjoint(days[day])]
    oldest = (date.fromisoformat(today) - timedelta(days=max_days)).isoformat() if max_days > 0 else ""
    due = [day for day in past if day < oldest]
    left_bytes = sum(length.size_bytes for length in lengths.values())
    left_bytes -= sum(length.size_bytes for day in due for length in days[day].values())
    for day in past if max_bytes > 0 else ():
        if left_bytes <= max_bytes:
            break
        if day not in due and all(path.endswith(SUFFIX) for path in days[day]):
            due.append(day)
            left_bytes -= sum(length.size_bytes for length in days[day].values())
    return DueDates(sorted(due), max(0, left_bytes - max_bytes) if max_bytes > 0 else 0)


def retired_runs(root: Path, files: Mapping[str, FileLength], day: str) -> list[RetiredRun]:
    """Read the sequence numbers of the lines of a date, as few runs as cover them.

    Raises:
        ArchiveError: A file cannot be read, or differs from the catalogue.
    """
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for path, length in files.items():
        lines = 0
        for producer, epoch, seq in _positions(root / path, length.size_bytes):
            lines += 1
            runs = found.setdefault((producer, epoch), [])
            # Almost all lines of a producer come in order.
            if runs and runs[-1][1] + 1 == seq:
                runs[-1] = (runs[-1][0], seq)
            else:
                runs.append((seq, seq))
        if lines != length.lines:
            raise ArchiveError(f"{root / path} has {lines} lines, but {length.lines} according to the catalogue.")
    return [
        RetiredRun(*key, first_seq, last_seq, day)
        for key in sorted(found)
        for first_seq, last_seq in _joined(sorted(found[key]))
    ]


def retire_files(
    database: Database, lease_epoch: int, files: Mapping[str, FileLength], runs: Iterable[RetiredRun]
) -> bool:
    """Remove files from the catalogue and add the runs of their lines, in one transaction.

    Returns:
        Whether it was done; a file may have been replaced since it was read.
    """
    sql = database.sql
    with database.lease_transaction(lease_epoch):
        rows = set(sql.execute("SELECT path, bytes, lines FROM files WHERE sealed = 1").fetchall())
        if not {(path, *length) for path, length in files.items()} <= rows:
            return False
        sql.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in files])
        sql.executemany("INSERT OR REPLACE INTO retired VALUES (?, ?, ?, ?, ?)", runs)
    return True


def last_retired_day(database: Database) -> str | None:
    """Read the last UTC date that was removed; None if none was."""
    with database.errors_translated():
        (day,) = database.sql.execute("SELECT max(day) FROM retired").fetchone()
    return None if day is None else str(day)


def retired_days(root: Path) -> dict[str, int]:
    """Read how many events of which UTC dates were removed, the oldest date first."""
    if not query_catalogue(root, "SELECT 1 FROM sqlite_master WHERE name = 'retired'"):
        return {}
    query = "SELECT day, sum(last_seq - first_seq + 1) FROM retired GROUP BY day ORDER BY day"
    return dict(query_catalogue(root, query))


def _positions(path: Path, size_bytes: int) -> Iterator[EventPosition]:
    if path.suffix == SUFFIX:
        yield from read_positions(path)
        return
    try:
        for line in committed_lines(path, size_bytes):
            yield position_of(line)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror}.") from None
    except BadEventError as error:
        raise ArchiveError(f"{path}: {error}") from None


def _joined(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first_seq, last_seq in runs:
        if joined and first_seq <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last_seq))
        else:
            joined.append((first_seq, last_seq))
    return joined
