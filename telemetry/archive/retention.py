"""What an archive no longer keeps: which dates go, and the account of their numbers.

Invariants:

- Only whole past dates go, and only those of which no file grows any more. By age every such date goes, by size only
  compacted ones; the oldest first. Nothing that is not archived yet is touched.
- A date's files leave the catalogue in one transaction with the numbers of their lines, which are `retired` from then
  on: archived, and not there any more. So an account of the archive still adds up.
- A file that holds something else than the catalogue says is not retired: damage stays for the audit to tell.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from telemetry.catalogue.catalogue_file import Database, ask
from telemetry.catalogue.commit import FileLength
from telemetry.errors import ArchiveError, BadEventError
from telemetry.events import position_of

_DATE: Final = "date="
_PARQUET: Final = ".parquet"


class Due(NamedTuple):
    """What is to go.

    Attributes:
        days: UTC dates, the oldest first.
        excess_bytes: How much too large the archive then still is, because nothing else may go.
    """

    days: Sequence[str]
    excess_bytes: int


class RetiredRun(NamedTuple):
    """A run of numbers whose lines were archived under a UTC date and are not kept any more."""

    producer: str
    epoch: int
    first_seq: int
    last_seq: int
    day: str

    @property
    def size(self) -> int:
        """How many numbers they are."""
        return self.last_seq - self.first_seq + 1


def due(
    lengths: Mapping[str, FileLength], growing: Collection[str], today: str, most_days: int, most_bytes: int
) -> Due:
    """Decide what goes (pure).

    Args:
        lengths: All files of the archive.
        growing: Those that may still grow.
        today: The UTC date.
        most_days: How many dates before today are kept; 0 for all.
        most_bytes: How large the archive may be; 0 for any size.

    Returns:
        The decision.
    """
    days: dict[str, dict[str, FileLength]] = {}
    for path, length in lengths.items():
        if path.startswith(_DATE):
            days.setdefault(path[len(_DATE) :].partition("/")[0], {})[path] = length
    open_files = set(growing)
    past = [day for day in sorted(days) if day < today and open_files.isdisjoint(days[day])]
    oldest = (date.fromisoformat(today) - timedelta(days=most_days)).isoformat() if most_days > 0 else ""
    gone = [day for day in past if day < oldest]
    left_bytes = sum(length.size_bytes for length in lengths.values())
    left_bytes -= sum(length.size_bytes for day in gone for length in days[day].values())
    for day in past if most_bytes > 0 else ():
        if left_bytes <= most_bytes:
            break
        if day not in gone and all(path.endswith(_PARQUET) for path in days[day]):
            gone.append(day)
            left_bytes -= sum(length.size_bytes for length in days[day].values())
    return Due(sorted(gone), max(0, left_bytes - most_bytes) if most_bytes > 0 else 0)


def numbers_in(root: Path, files: Mapping[str, FileLength], day: str) -> list[RetiredRun]:
    """Read which numbers the lines of a date have.

    Args:
        root: The archive's directory.
        files: The date's files.
        day: The UTC date.

    Returns:
        As few runs as cover them.

    Raises:
        ArchiveError: A file cannot be read, or is not what the catalogue says.
    """
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for path, length in files.items():
        lines = 0
        for producer, epoch, seq in _places(root / path, length.size_bytes):
            lines += 1
            runs = found.setdefault((producer, epoch), [])
            # Lines of a producer come in their order but for a few.
            if runs and runs[-1][1] + 1 == seq:
                runs[-1] = (runs[-1][0], seq)
            else:
                runs.append((seq, seq))
        if lines != length.lines:
            raise ArchiveError(f"{root / path} has {lines} lines, and the catalogue says {length.lines}")
    return [
        RetiredRun(*key, first_seq, last_seq, day)
        for key in sorted(found)
        for first_seq, last_seq in _joined(sorted(found[key]))
    ]


class Retirements:
    """The retired numbers in a catalogue.

    Args:
        database: The catalogue's file.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._sql = database.sql

    def retire(self, lease_epoch: int, files: Mapping[str, FileLength], runs: Iterable[RetiredRun]) -> bool:
        """Let files not count any more.

        Args:
            lease_epoch: Our lease.
            files: Which, as they were read.
            runs: The numbers of their lines.

        Returns:
            Whether it was done; a file may have been replaced since it was read.

        Raises:
            LeaseLostError: The lease is not ours any more; nothing was changed.
        """
        with self._db.held(lease_epoch):
            rows = set(self._sql.execute("SELECT path, bytes, lines FROM files WHERE sealed = 1").fetchall())
            if not {(path, *length) for path, length in files.items()} <= rows:
                return False
            self._sql.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in files])
            self._sql.executemany("INSERT OR REPLACE INTO retired VALUES (?, ?, ?, ?, ?)", runs)
        return True


def retired_days(root: Path) -> dict[str, int]:
    """Read which dates are not kept any more.

    Args:
        root: The archive's directory.

    Returns:
        How many events by UTC date, the oldest first.

    Raises:
        ArchiveError: The catalogue cannot be read.
    """
    if not ask(root, "SELECT 1 FROM sqlite_master WHERE name = 'retired'"):
        return {}
    return dict(ask(root, "SELECT day, sum(last_seq - first_seq + 1) FROM retired GROUP BY day ORDER BY day"))


def _places(path: Path, size_bytes: int) -> Iterator[tuple[str, int, int]]:
    if path.suffix == _PARQUET:
        from telemetry.archive.parquet_file import read_places

        yield from read_places(path)
        return
    try:
        with path.open("rb") as file:
            while size_bytes > 0 and (line := file.readline()):
                size_bytes -= len(line)
                yield position_of(line)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror}") from None
    except BadEventError as error:
        raise ArchiveError(f"{path}: {error}") from None


def _joined(runs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first_seq, last_seq in runs:
        if joined and first_seq <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last_seq))
        else:
            joined.append((first_seq, last_seq))
    return joined
