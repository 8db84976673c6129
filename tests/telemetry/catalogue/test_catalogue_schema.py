"""A catalogue of version 1, as the released version 0.1.0 made it, opens and accounts for every number."""

import sqlite3
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from telemetry.archive.archive import Archive
from telemetry.archive.archive_reader import read
from telemetry.archive.archive_snapshot import open_snapshot
from telemetry.archive.dead_letters import read_letters
from telemetry.batch import Position
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.catalogue_file import FILE_NAME
from telemetry.catalogue.commit import Progress, RemovedRun
from telemetry.erasure.erasure_requests import late_event_filter
from telemetry.errors import ArchiveError
from telemetry.events import Feedback, decode, encode
from telemetry.fingerprint import UNKNOWN
from tests.support import sample_events

VERSION_1 = """
CREATE TABLE IF NOT EXISTS lease (
  id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL, holder TEXT NOT NULL, beat INTEGER NOT NULL,
  machine TEXT NOT NULL, locked INTEGER NOT NULL
);
INSERT OR IGNORE INTO lease VALUES (1, 0, '', 0, '', 0);
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, lines INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS progress (
  producer TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, archived INTEGER NOT NULL,
  deduplicated INTEGER NOT NULL, dead_lettered INTEGER NOT NULL, missing INTEGER NOT NULL, holes INTEGER NOT NULL,
  PRIMARY KEY (producer, epoch)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (
  tenant TEXT NOT NULL, event_id TEXT NOT NULL, at_s INTEGER NOT NULL, PRIMARY KEY (tenant, event_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_at ON seen (at_s);
PRAGMA journal_mode = WAL;
PRAGMA user_version = 1;
"""
EVENTS = "date=2026-11-21/part-00000003-0000.jsonl"
LETTERS = "deadletters/part-00000003-0000.jsonl"


def line(producer: str, seq: int) -> bytes:
    return encode(sample_events.feedback(event_id=f"ev-{producer}-{seq:06d}"), producer, 1, seq)


def letter(entry_id: str, seq: int | None) -> bytes:
    fields = {"schema": 1, "class": "dead_letter", "at": "2026-11-21T01:02:03.456Z", "producer": "p"}
    fields |= {"entry_id": entry_id, "reason": "because", "data": "x\n", "data_base64": None}
    return orjson.dumps({**fields, "seq": seq}, option=orjson.OPT_APPEND_NEWLINE)


@pytest.fixture
def released(tmp_path: Path) -> Path:
    # p: 1-3 archived, 4 a letter, 5-7 a letter for a whole entry, 8-9 duplicates, 10 archived, 11-14 never came.
    files = {
        EVENTS: [*(line("p", seq) for seq in (1, 2, 3, 10)), *(line("q", seq) for seq in (1, 2)), line("r", 1)],
        LETTERS: [letter("1-4", 4), letter("1-7", None)],
    }
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db, db:
        db.executescript(VERSION_1)
        db.execute("UPDATE lease SET epoch = 3")
        db.execute("INSERT INTO seen VALUES ('default', 'ev-p-000001', 100), ('default', 'ev-gone-0001', 100)")
        rows = [("p", 14, 4, 2, 4, 4, 1), ("q", 2, 2, 0, 0, 0, 0), ("r", 4, 1, 0, 0, 3, 1)]
        db.executemany("INSERT INTO progress VALUES (?, 1, ?, ?, ?, ?, ?, ?)", rows)
        for path, lines in files.items():
            (tmp_path / path).parent.mkdir()
            (tmp_path / path).write_bytes(b"".join(lines) + b"torn")
            db.execute("INSERT INTO files VALUES (?, ?, ?)", (path, len(b"".join(lines)), len(lines)))
    return tmp_path


@pytest.fixture
def second(released: Path) -> Path:
    """The same as version 2 left it: everything but the fingerprints is there."""
    Catalogue(released).close()
    with closing(sqlite3.connect(released / FILE_NAME)) as db, db:
        db.executescript(
            """
            CREATE TABLE old AS SELECT DISTINCT tenant, event_id, at_s FROM seen;
            DROP TABLE seen;
            CREATE TABLE seen (
              tenant TEXT NOT NULL, event_id TEXT NOT NULL, at_s INTEGER NOT NULL, PRIMARY KEY (tenant, event_id)
            ) WITHOUT ROWID;
            CREATE INDEX seen_at ON seen (at_s);
            INSERT INTO seen SELECT * FROM old;
            DROP TABLE old;
            PRAGMA user_version = 2;
            """
        )
    return released


@pytest.mark.parametrize("version", ["released", "second"])
async def test_an_older_archive_opens_and_is_appended_to(version: str, request: pytest.FixtureRequest) -> None:
    """Its lines, letters, lease and event ids are there, its files are sealed, and it is appended to."""
    released: Path = request.getfixturevalue(version)
    assert len(list(read(released))) == 7
    archive = Archive(released)
    assert await archive.acquire(1.0) == 4
    assert archive.watermarks == {"p": Position(1, 14), "q": Position(1, 2), "r": Position(1, 4)}
    assert set(await archive.sealed_files()) == {EVENTS, LETTERS}
    first = decode(line("p", 1)).event
    assert isinstance(first, Feedback)
    assert await archive.seen_fingerprints([("default", "ev-p-000001"), ("default", "ev-gone-0001")]) == {
        ("default", "ev-p-000001"): {archive.fingerprints.of_event(first)},
        ("default", "ev-gone-0001"): {UNKNOWN},
    }
    assert not await archive.read_catalogue(late_event_filter, ["u1"], archive.days_ago(7))
    await archive.close()
    assert len(list(read(released))) == 7
    assert [(one.seq, one.tries, one.state) for one in read_letters(released)] == [(4, 1, None), (None, 1, None)]
    assert len({one.letter_id for one in read_letters(released)}) == 2


def test_numbers_that_were_only_counted_get_their_runs(released: Path) -> None:
    """From the files: a number in neither a line nor a letter was a duplicate or never came."""
    Catalogue(released).close()
    with open_snapshot(released) as archive:
        assert archive.progress == {
            ("p", 1): Progress(14, archived=4, deduplicated=2, dead_lettered=4, missing=4, holes=1),
            ("q", 1): Progress(2, archived=2),
            ("r", 1): Progress(4, archived=1, missing=3, holes=1),
        }
        assert list(archive.removed) == [
            RemovedRun("p", 1, 4, 7, "dead_lettered", None),
            RemovedRun("p", 1, 8, 9, "deduplicated", None),
            RemovedRun("p", 1, 11, 14, "missing", None),
            RemovedRun("r", 1, 2, 4, "missing", None),
        ]
        lengths = {file.path: (file.size_bytes, file.lines) for file in archive.files}
        assert lengths[EVENTS] == ((released / EVENTS).stat().st_size - 4, 7)


def test_an_upgraded_catalogue_has_the_tables_of_a_new_one(released: Path) -> None:
    """Column by column; and a second opening changes nothing."""
    new = released / "new"
    new.mkdir()
    tables = "SELECT type, name, sql FROM sqlite_schema ORDER BY name"
    found = []
    for root in (released, new):
        with closing(Catalogue(root)) as catalogue:
            salt = catalogue.database.sql.execute("SELECT value FROM settings WHERE name = 'salt'").fetchall()
        with closing(Catalogue(root)) as catalogue:
            assert catalogue.database.sql.execute("SELECT value FROM settings").fetchall() == salt
            found.append(
                [
                    (kind, name, (sql or "").replace("IF NOT EXISTS ", ""))
                    for kind, name, sql in catalogue.database.sql.execute(tables)
                ]
            )
    assert found[0] == found[1]


def test_an_upgrade_that_fails_leaves_the_old_catalogue(released: Path) -> None:
    """All of it or nothing: the catalogue is still of version 1."""
    with closing(sqlite3.connect(released / FILE_NAME)) as db, db:
        db.execute("CREATE TABLE removed (surprise)")
    with pytest.raises(ArchiveError, match="already exists"):
        Catalogue(released)
    with closing(sqlite3.connect(released / FILE_NAME)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT count(*) FROM progress").fetchone() == (3,)


def test_a_damaged_file_does_not_prevent_the_upgrade(released: Path) -> None:
    """The audit reports the damage; the consumer continues."""
    (released / LETTERS).unlink()
    (released / EVENTS).write_bytes(b"\x00" * 100)
    with closing(Catalogue(released)) as catalogue:
        assert catalogue.watermarks()["p"] == Position(1, 14)
