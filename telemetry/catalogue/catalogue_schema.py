"""The tables of the catalogue.

Invariant: a catalogue is made or upgraded in one transaction, so it is of one version or of the other.
"""

import sqlite3
from pathlib import Path
from typing import Final

from telemetry.catalogue.catalogue_upgrade import RENAME_1, RENAME_2, copy_version_1, copy_version_2, run_script
from telemetry.errors import ArchiveError

VERSION: Final = 3

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
# Made wherever they are missing.
_ADDITIONS: Final = """
CREATE TABLE IF NOT EXISTS retired (
  producer TEXT NOT NULL, epoch INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
  day TEXT NOT NULL, PRIMARY KEY (producer, epoch, first_seq)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS erasures_user ON erasures (user_digest);
CREATE INDEX IF NOT EXISTS erasures_done ON erasures (done_at);
CREATE INDEX IF NOT EXISTS erasures_empty ON erasures (done_at) WHERE events = 0 AND models = 0;
"""


def prepare(db: sqlite3.Connection, root: Path) -> None:
    """Make the tables, or upgrade them.

    Args:
        db: The open catalogue, in autocommit mode.

    Raises:
        ArchiveError: The catalogue is of a newer version.
        sqlite3.Error: It cannot be read or written.
    """
    if _version(db) == VERSION:
        run_script(db, _ADDITIONS)
        return
    if _version(db) > VERSION:
        raise ArchiveError(
            f"The catalogue in {root} is of version {_version(db)}; this program reads versions up to {VERSION}."
        )
    db.execute("BEGIN IMMEDIATE")
    try:
        # Two consumers may start at once: the second one finds everything made.
        version = _version(db)
        if version == 1:
            run_script(db, RENAME_1 + _TABLES)
            copy_version_1(db, root)
        elif version == 0:
            run_script(db, _TABLES + _SEEN)
        if version in {1, 2}:
            run_script(db, RENAME_2 + _SEEN)
            copy_version_2(db, root)
        run_script(db, _ADDITIONS)
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)
