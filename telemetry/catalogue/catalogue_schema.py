"""The tables of the catalogue, and how one of version 1 or 2 becomes one of version 3.

Invariants:

- A catalogue is made or upgraded in one transaction: it is of one version or of the other.
- An upgraded catalogue has the tables of a new one, and keeps the account true: numbers that version 1 had
  only counted get their `removed` rows from the archive itself.
- So do the remembered event ids their fingerprints, which version 3 compares. An id whose line cannot be found any
  more stands for whatever comes under it, as it did before.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from telemetry.catalogue.commit import RemovalReason, RemovedRun, runs_of
from telemetry.errors import ArchiveError
from telemetry.fingerprint import Fingerprints
from telemetry.ids import rfc3339_ms

VERSION: Final = 3
_MOST_NUMBERS: Final = 100_000_000

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS lease (
  id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL, holder TEXT NOT NULL, beat INTEGER NOT NULL,
  machine TEXT NOT NULL, locked INTEGER NOT NULL
);
INSERT OR IGNORE INTO lease VALUES (1, 0, '', 0, '', 0);
CREATE TABLE files (
  path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, lines INTEGER NOT NULL, sealed INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE progress (
  producer TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, archived INTEGER NOT NULL,
  deduplicated INTEGER NOT NULL, dead_lettered INTEGER NOT NULL, erased INTEGER NOT NULL, missing INTEGER NOT NULL,
  holes INTEGER NOT NULL, PRIMARY KEY (producer, epoch)
) WITHOUT ROWID;
CREATE TABLE removed (
  producer TEXT NOT NULL, epoch INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
  why TEXT NOT NULL CHECK (why IN ('deduplicated', 'dead_lettered', 'erased', 'missing')), received_at TEXT,
  PRIMARY KEY (producer, epoch, first_seq, why)
) WITHOUT ROWID;
CREATE TABLE attempts (
  producer TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, of_entry INTEGER NOT NULL,
  times INTEGER NOT NULL, run TEXT NOT NULL, PRIMARY KEY (producer, epoch, seq, of_entry)
) WITHOUT ROWID;
CREATE TABLE letters (letter_id TEXT PRIMARY KEY, settled TEXT NOT NULL, at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE erasures (
  erase_id TEXT PRIMARY KEY, user_id TEXT, user_digest TEXT NOT NULL, requested_at TEXT NOT NULL, done_at TEXT,
  events INTEGER NOT NULL, files INTEGER NOT NULL, models INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO settings VALUES ('salt', lower(hex(randomblob(32))));
"""
_SEEN: Final = """
CREATE TABLE seen (
  tenant TEXT NOT NULL, event_id TEXT NOT NULL, fingerprint BLOB NOT NULL, at_s INTEGER NOT NULL,
  PRIMARY KEY (tenant, event_id, fingerprint)
) WITHOUT ROWID;
CREATE INDEX seen_at ON seen (at_s);
"""
# Made wherever they are not there yet.
_ADDITIONS: Final = """
CREATE TABLE IF NOT EXISTS retired (
  producer TEXT NOT NULL, epoch INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
  day TEXT NOT NULL, PRIMARY KEY (producer, epoch, first_seq)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS erasures_user ON erasures (user_digest);
CREATE INDEX IF NOT EXISTS erasures_done ON erasures (done_at);
CREATE INDEX IF NOT EXISTS erasures_empty ON erasures (done_at) WHERE events = 0 AND models = 0;
"""
_SET_ASIDE: Final = """
ALTER TABLE files RENAME TO files_1;
ALTER TABLE progress RENAME TO progress_1;
"""
_BRING_OVER: Final = """
INSERT INTO files SELECT path, bytes, lines, 1 FROM files_1;
INSERT INTO progress SELECT producer, epoch, seq, archived, deduplicated, dead_lettered, 0, missing, holes
  FROM progress_1;
DROP TABLE files_1;
DROP TABLE progress_1;
"""
_SET_SEEN_ASIDE: Final = """
ALTER TABLE seen RENAME TO seen_2;
DROP INDEX seen_at;
"""
_BRING_SEEN_OVER: Final = """
INSERT INTO seen SELECT tenant, event_id, x'', at_s FROM seen_2 AS old
  WHERE NOT EXISTS (SELECT 1 FROM seen WHERE seen.tenant = old.tenant AND seen.event_id = old.event_id);
DROP TABLE seen_2;
"""
# A line may be that much older than the moment at which its id was remembered.
_LATE_DAYS: Final = 30
_PARQUET: Final = ".parquet"
_FEEDBACK: Final = b'"class":"feedback"'
_HEAD_BYTES: Final = 64


def prepare(db: sqlite3.Connection, root: Path) -> None:
    """Make the tables, or upgrade them.

    Args:
        db: The open catalogue, in autocommit mode.
        root: The archive's directory.

    Raises:
        ArchiveError: The catalogue is of a version that this program does not know.
        sqlite3.Error: It cannot be read or written.
    """
    if _version(db) == VERSION:
        _run(db, _ADDITIONS)
        return
    if _version(db) > VERSION:
        raise ArchiveError(f"the catalogue in {root} is of version {_version(db)}; this program knows {VERSION}")
    db.execute("BEGIN IMMEDIATE")
    try:
        # Two consumers may start at once: whoever is second finds everything there.
        version = _version(db)
        if version == 1:
            _run(db, _SET_ASIDE + _TABLES + _BRING_OVER)
            db.executemany("INSERT INTO removed VALUES (?, ?, ?, ?, ?, ?)", _unaccounted(db, root))
        elif version == 0:
            _run(db, _TABLES + _SEEN)
        if version in {1, 2}:
            _bring_seen_over(db, root)
        _run(db, _ADDITIONS)
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def _run(db: sqlite3.Connection, script: str) -> None:
    # `executescript` would commit the transaction first.
    for statement in script.split(";\n"):
        if statement.strip():
            db.execute(statement)


def _unaccounted(db: sqlite3.Connection, root: Path) -> list[RemovedRun]:
    """Find out from the files which numbers version 1 had not archived.

    Dead letters say which they were. Of the rest version 1 kept only how many were duplicates and how many
    never came; where both occur, the longest runs are taken to be what never came.
    """
    archived: dict[tuple[str, int], set[int]] = defaultdict(set)
    dead: dict[tuple[str, int], set[int]] = defaultdict(set)
    entries: list[tuple[str, int, int]] = []
    accounts = db.execute("SELECT producer, epoch, seq, archived, dead_lettered, missing FROM progress").fetchall()
    # Most producers have nothing to find, and an archive may be large. A number beyond all reason was never given.
    wanted = {(row[0], row[1]) for row in accounts if row[2] != row[3] and row[2] < _MOST_NUMBERS}
    if not wanted:
        return []
    for path, size_bytes in db.execute("SELECT path, bytes FROM files ORDER BY path").fetchall():
        for line in _lines(root / path, size_bytes):
            if path.startswith("deadletters/"):
                epoch, _, last_seq = line["entry_id"].partition("-")
                if line["seq"] is None:
                    entries.append((line["producer"], int(epoch), int(last_seq)))
                else:
                    dead[line["producer"], int(epoch)].add(line["seq"])
            elif (line["producer"], line["epoch"]) in wanted:
                archived[line["producer"], line["epoch"]].add(line["seq"])
    found: list[RemovedRun] = []
    for producer, epoch, seq, _, dead_lettered, missing in accounts:
        key = (producer, epoch)
        absent = set(range(1, seq + 1)) - archived[key] if key in wanted else set()
        buried = dead[key] & absent
        for last_seq in (entry[2] for entry in entries if entry[:2] == key):
            number = last_seq
            # A whole entry reaches back to the last number that something else accounts for.
            while number in absent - buried and len(buried) < dead_lettered:
                buried.add(number)
                number -= 1
        rest = runs_of([(*key, number, None) for number in absent - buried], "missing")
        never_came: set[int] = set()
        for run in sorted(rest, key=lambda run: run.first_seq - run.last_seq):
            never_came.update(range(run.first_seq, run.last_seq + 1)[: missing - len(never_came)])
        parts: list[tuple[set[int], RemovalReason]] = [
            (buried, "dead_lettered"),
            (never_came, "missing"),
            (absent - buried - never_came, "deduplicated"),
        ]
        for numbers, why in parts:
            found += runs_of([(*key, number, None) for number in numbers], why)
    return found


def _bring_seen_over(db: sqlite3.Connection, root: Path) -> None:
    """Give the remembered ids the fingerprints of the events that are archived under them."""
    _run(db, _SET_SEEN_ASIDE + _SEEN)
    (oldest_s,) = db.execute("SELECT min(at_s) FROM seen_2").fetchone()
    if oldest_s is not None:
        (salt,) = db.execute("SELECT value FROM settings WHERE name = 'salt'").fetchone()
        since = f"date={rfc3339_ms(max(oldest_s - _LATE_DAYS * 86_400, 0))[:10]}"
        db.executemany(
            "INSERT OR IGNORE INTO seen SELECT tenant, event_id, ?, at_s FROM seen_2 WHERE tenant = ? AND event_id = ?",
            _archived_feedback(db, root, since, Fingerprints(bytes.fromhex(salt))),
        )
    _run(db, _BRING_SEEN_OVER)


def _archived_feedback(
    db: sqlite3.Connection, root: Path, since: str, fingerprints: Fingerprints
) -> Iterator[tuple[bytes, str, str]]:
    files = db.execute("SELECT path, bytes FROM files WHERE path >= ? AND path LIKE 'date=%' ORDER BY path", (since,))
    for path, size_bytes in files.fetchall():
        for line in _raw_lines(root / path, size_bytes):
            if _FEEDBACK in line[:_HEAD_BYTES]:
                # A line that cannot be read leaves its id as it was.
                with suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
                    fields = orjson.loads(line)
                    yield fingerprints.of_fields(fields), fields["tenant"], fields["event_id"]


def _raw_lines(path: Path, size_bytes: int) -> Iterator[bytes]:
    if path.suffix == _PARQUET:
        # Here, because only an archive with compacted files needs it.
        from telemetry.archive.parquet_file import read_lines

        with suppress(ArchiveError, OSError):
            yield from read_lines(path)
        return
    with suppress(OSError), path.open("rb") as file:
        while size_bytes > 0 and (line := file.readline()):
            size_bytes -= len(line)
            yield line


def _lines(path: Path, size_bytes: int) -> Iterator[dict[str, Any]]:
    # Damage is for the audit to tell, and no reason to refuse new events.
    with suppress(OSError, orjson.JSONDecodeError), path.open("rb") as file:
        while size_bytes > 0 and (line := file.readline()):
            size_bytes -= len(line)
            yield orjson.loads(line)
