"""Upgrades of a catalogue of version 1 or 2, within the transaction of `catalogue_schema.prepare`.

Invariants:

- The counts stay true: version 1 only counted the seqs that are not archived lines; their `removed` rows come from the
  archive's files.
- Version 3 compares fingerprints of seen events; they come from the archived lines. An id whose line cannot be found
  keeps matching any event, as in version 2.

Only these upgrades read files of the archive: older catalogues lack what newer ones store at each commit.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from telemetry.archive.archive_files import committed_lines
from telemetry.catalogue.commit import RemovalReason, RemovedRun, runs_of
from telemetry.errors import ArchiveError
from telemetry.fingerprint import Fingerprints
from telemetry.ids import rfc3339_ms

_MAX_SEQ: Final = 100_000_000
# A line may have been received so long before its id was stored.
_LATE_DAYS: Final = 30
_FEEDBACK: Final = b'"class":"feedback"'
_HEAD_BYTES: Final = 64

# Run before the tables of the next version are made.
RENAME_1: Final = """
ALTER TABLE files RENAME TO files_1;
ALTER TABLE progress RENAME TO progress_1;
"""
_COPY_1: Final = """
INSERT INTO files SELECT path, bytes, lines, 1 FROM files_1;
INSERT INTO progress SELECT producer, epoch, seq, archived, deduplicated, dead_lettered, 0, missing, holes
  FROM progress_1;
DROP TABLE files_1;
DROP TABLE progress_1;
"""
RENAME_2: Final = """
ALTER TABLE seen RENAME TO seen_2;
DROP INDEX seen_at;
"""
_COPY_2: Final = """
INSERT INTO seen SELECT tenant, event_id, x'', at_s FROM seen_2 AS old
  WHERE NOT EXISTS (SELECT 1 FROM seen WHERE seen.tenant = old.tenant AND seen.event_id = old.event_id);
DROP TABLE seen_2;
"""


def run_script(db: sqlite3.Connection, script: str) -> None:
    """Run statements within the open transaction; `executescript` would commit it first."""
    for statement in script.split(";\n"):
        if statement.strip():
            db.execute(statement)


def copy_version_1(db: sqlite3.Connection, root: Path) -> None:
    """Copy the rows of version 1 into the new tables, and derive `removed` from the files."""
    run_script(db, _COPY_1)
    db.executemany("INSERT INTO removed VALUES (?, ?, ?, ?, ?, ?)", _removed_runs(db, root))


def copy_version_2(db: sqlite3.Connection, root: Path) -> None:
    """Copy the seen ids, with the fingerprints of the events archived under them."""
    (oldest_s,) = db.execute("SELECT min(at_s) FROM seen_2").fetchone()
    if oldest_s is not None:
        (salt,) = db.execute("SELECT value FROM settings WHERE name = 'salt'").fetchone()
        since = f"date={rfc3339_ms(max(oldest_s - _LATE_DAYS * 86_400, 0))[:10]}"
        db.executemany(
            "INSERT OR IGNORE INTO seen SELECT tenant, event_id, ?, at_s FROM seen_2 WHERE tenant = ? AND event_id = ?",
            _archived_feedback(db, root, since, Fingerprints(bytes.fromhex(salt))),
        )
    run_script(db, _COPY_2)


def _removed_runs(db: sqlite3.Connection, root: Path) -> list[RemovedRun]:
    """Derive from the files which seqs version 1 had not archived.

    Dead letters name theirs. Of the rest version 1 kept only the numbers of duplicates and of missing events; where
    both occur, the longest runs are taken as missing.
    """
    archived: dict[tuple[str, int], set[int]] = defaultdict(set)
    dead: dict[tuple[str, int], set[int]] = defaultdict(set)
    entries: list[tuple[str, int, int]] = []
    counts = db.execute("SELECT producer, epoch, seq, archived, dead_lettered, missing FROM progress").fetchall()
    # Most producers have nothing to find, and an archive may be large. A seq beyond the limit is damage.
    incomplete = {(row[0], row[1]) for row in counts if row[2] != row[3] and row[2] < _MAX_SEQ}
    if not incomplete:
        return []
    for path, size_bytes in db.execute("SELECT path, bytes FROM files ORDER BY path").fetchall():
        for line in _parsed_lines(root / path, size_bytes):
            if path.startswith("deadletters/"):
                epoch, _, last_seq = line["entry_id"].partition("-")
                if line["seq"] is None:
                    entries.append((line["producer"], int(epoch), int(last_seq)))
                else:
                    dead[line["producer"], int(epoch)].add(line["seq"])
            elif (line["producer"], line["epoch"]) in incomplete:
                archived[line["producer"], line["epoch"]].add(line["seq"])
    found: list[RemovedRun] = []
    for producer, epoch, seq, _, dead_lettered, missing in counts:
        key = (producer, epoch)
        absent = set(range(1, seq + 1)) - archived[key] if key in incomplete else set()
        in_letters = dead[key] & absent
        for last_seq in (entry[2] for entry in entries if entry[:2] == key):
            candidate = last_seq
            # A whole entry reaches back to the last seq that something else accounts for.
            while candidate in absent - in_letters and len(in_letters) < dead_lettered:
                in_letters.add(candidate)
                candidate -= 1
        rest = runs_of([(*key, one, None) for one in absent - in_letters], "missing")
        never_came: set[int] = set()
        for run in sorted(rest, key=lambda run: -run.size):
            never_came.update(range(run.first_seq, run.last_seq + 1)[: missing - len(never_came)])
        by_reason: list[tuple[set[int], RemovalReason]] = [
            (in_letters, "dead_lettered"),
            (never_came, "missing"),
            (absent - in_letters - never_came, "deduplicated"),
        ]
        for seqs, why in by_reason:
            found += runs_of([(*key, one, None) for one in seqs], why)
    return found


def _archived_feedback(
    db: sqlite3.Connection, root: Path, since: str, fingerprints: Fingerprints
) -> Iterator[tuple[bytes, str, str]]:
    files = db.execute("SELECT path, bytes FROM files WHERE path >= ? AND path LIKE 'date=%' ORDER BY path", (since,))
    for path, size_bytes in files.fetchall():
        with suppress(ArchiveError, OSError):
            for line in committed_lines(root / path, size_bytes):
                if _FEEDBACK in line[:_HEAD_BYTES]:
                    # A line that cannot be read leaves its id as it was.
                    with suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
                        fields = orjson.loads(line)
                        yield fingerprints.of_fields(fields), fields["tenant"], fields["event_id"]


def _parsed_lines(path: Path, size_bytes: int) -> Iterator[dict[str, Any]]:
    # Damage must not stop the upgrade, and with it new events; the audit reports it.
    with suppress(OSError, orjson.JSONDecodeError):
        for line in committed_lines(path, size_bytes):
            yield orjson.loads(line)
