import csv
import io
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ops.commands.archive import app
from ops.commands.archive_export import rename_into_place
from ops.console.command_runner import run
from service.config import Config
from telemetry.archive import compaction
from telemetry.archive.archive_reader import read
from telemetry.archive.compaction import compact
from telemetry.archive.parquet_file import FIELDS, read_lines, write_lines
from telemetry.events import Event, System, decode
from telemetry.served_items import ServedItem
from tests.support.archive_commits import PRODUCER, addition, commit, seal
from tests.support.sample_events import feedback, item_change, served

Archive = Callable[..., tuple[int, str, str]]
ITEMS: list[ServedItem] = [
    {"item_id": "318", "position": 0, "score": 4.71, "source": "personal", "propensity": 1.0},
    {"item_id": "a,b", "position": 1, "score": 3.5, "source": "popular", "propensity": 0.5},
]
FIRST: list[tuple[int, Event]] = [
    (1, served(event_id="list-1", recommendation_id="list-1", items=ITEMS, received_at="2026-11-20T23:59:59.999Z")),
    (2, feedback(event_id="event-2", value=4.5, type="rating", marks=["unknown_item"])),
]
SECOND: list[tuple[int, Event]] = [
    (3, feedback(event_id="event-3", user_id="7", received_at="2026-11-21T08:00:00.000Z")),
    (
        4,
        System(
            event_id="gap-4",
            tenant="default",
            client_time=None,
            received_at="2026-11-22T00:00:00.000Z",
            kind="gap",
            of_class="served",
            count=5,
            reason="no budget",
            from_seq=3,
            to_seq=3,
        ),
    ),
]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "var")


@pytest.fixture
def archive(config: Config, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.setenv("RECOLLECT_HOME", str(config.home))

    def call(*argv: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(app, argv)
        return code, *capfd.readouterr()

    return call


@pytest.fixture(params=["jsonl", "parquet", "both", "open"])
def filled(request: pytest.FixtureRequest, config: Config) -> Config:
    """Four events of three dates and one dead letter, in files of every kind; nothing beyond a commit counts."""
    root = config.archive_dir
    commit(root, addition(FIRST, [(9, "dead_lettered")]))
    if request.param in {"parquet", "both"}:
        seal(root)
        list(compact(root, "2027-01-01"))
    commit(root, addition(SECOND))
    if request.param != "open":
        seal(root)
    if request.param == "parquet":
        list(compact(root, "2027-01-01"))
    if request.param == "open":
        for path in root.glob("*/*.jsonl"):
            with path.open("ab") as file:
                file.write(b'{"class": "feedback", "not": "committed"}\n{"torn')
    return config


class TestList:
    def test_nothing(self, archive: Archive, config: Config) -> None:
        """A sentence, and in JSON an empty list."""
        assert archive("list")[:2] == (0, "Nothing is archived yet.\n")
        assert archive("list", "--json")[:2] == (0, "[]\n")
        assert not config.home.exists()

    def test_by_date(self, archive: Archive, filled: Config) -> None:
        """Files, bytes, events by class and times of each date; the dead letters come last."""
        code, out, _ = archive("list", "--json")
        result = json.loads(out)
        assert code == 0
        assert [(one["date"], one["events"]) for one in result] == [
            ("2026-11-20", {"served": 1}),
            ("2026-11-21", {"feedback": 2}),
            ("2026-11-22", {"system": 1}),
            ("deadletters", {"letters": 1}),
        ]
        assert (result[1]["first"], result[1]["last"]) == ("2026-11-21T01:02:03.456Z", "2026-11-21T08:00:00.000Z")
        assert sum(one["open_files"] for one in result[:3]) in {0, 2}

    def test_the_table(self, archive: Archive, config: Config) -> None:
        """One row for each date."""
        commit(config.archive_dir, addition(FIRST), addition(SECOND, [(9, "dead_lettered")]))
        sizes = {path.parent.name: path.stat().st_size for path in config.archive_dir.glob("*/*")}
        rows = [line.split() for line in archive("list")[1].splitlines()]
        days = [
            ("2026-11-20", "1 0 0 0 23:59:59 23:59:59"),
            ("2026-11-21", "0 2 0 0 01:02:03 08:00:00"),
            ("2026-11-22", "0 0 1 0 00:00:00 00:00:00"),
        ]
        assert rows == [
            ["date", "files", "format", "bytes", "served", "feedback", "system", "item", "first", "last"],
            *([day, "1", "(1", "open)", "jsonl", str(sizes[f"date={day}"]), *rest.split()] for day, rest in days),
            ["deadletters", "1", "(1", "open)", "jsonl", str(sizes["deadletters"]), "1", "letters"],
        ]


class TestExport:
    def test_jsonl_is_what_was_committed(self, archive: Archive, filled: Config, tmp_path: Path) -> None:
        """Byte for byte, to a file and to standard output."""
        lines = b"".join(read(filled.archive_dir))
        out = tmp_path / "out.jsonl"
        assert archive("export", "--out", str(out)) == (0, f"4 events written to {out}.\n", "")
        assert out.read_bytes() == lines
        assert out.stat().st_mode & 0o777 == 0o600
        assert archive("export", "--out", "-")[1].encode() == lines
        stored = archive("export", "--out", "-", "--as-stored")[1].encode()
        assert stored == b"".join(read(filled.archive_dir, stored=True)) != lines

    def test_an_existing_file_is_replaced_only_with_force(
        self, archive: Archive, filled: Config, tmp_path: Path
    ) -> None:
        """Refused before anything is read, and at the end again; only a regular file is ever replaced."""
        out = tmp_path / "out.jsonl"
        out.write_text("mine")
        assert archive("export", "--out", str(out)) == (
            2,
            "",
            f"recollect: {out} exists; name another file, or replace it with --force.\n",
        )
        assert out.read_text() == "mine"
        assert archive("export", "--out", str(out), "--force")[0] == 0
        assert len(out.read_text().splitlines()) == 4
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        assert archive("export", "--out", str(pipe), "--force")[0] == 2
        assert pipe.is_fifo()
        (tmp_path / "new").write_text("x")
        with pytest.raises(FileExistsError):
            rename_into_place(tmp_path / "new", out, force=False)

    @pytest.mark.parametrize(
        ("options", "ids"),
        [
            (["--class", "feedback"], ["event-2", "event-3"]),
            (["--from", "2026-11-21"], ["event-2", "event-3", "gap-4"]),
            (["--to", "2026-11-20"], ["list-1"]),
            (["--from", "2026-11-21T02:00:00Z", "--to", "2026-11-22T00:00:00Z"], ["event-3"]),
        ],
    )
    def test_a_choice(self, archive: Archive, filled: Config, options: list[str], ids: list[str]) -> None:
        """By class and by time."""
        out = archive("export", "--out", "-", *options)[1]
        assert sorted(json.loads(line)["event_id"] for line in out.splitlines()) == ids

    def test_csv(self, archive: Archive, filled: Config) -> None:
        """A column for each field of the class; lists are JSON."""
        rows = list(csv.DictReader(io.StringIO(archive("export", "--out", "-", "--format", "csv")[1])))
        assert [row["class"] for row in rows] == ["served", "feedback", "feedback", "system"]
        rows = list(
            csv.DictReader(io.StringIO(archive(*["export", "--out", "-", "--format", "csv", "--class", "served"])[1]))
        )
        assert (json.loads(rows[0]["items"]), rows[0]["user_id"], "type" in rows[0]) == (ITEMS, "42", False)
        out = archive(*["export", "--out", "-", "--format", "csv", "--dead-letters"])[1]
        (letter,) = csv.DictReader(io.StringIO(out))
        assert (letter["seq"], letter["data"]) == ("9", "{torn")

    def test_parquet(self, archive: Archive, filled: Config, tmp_path: Path) -> None:
        """The same file that a compaction makes."""
        out = tmp_path / "out.parquet"
        assert archive("export", "--out", str(out), "--format", "parquet", "--class", "served")[0] == 0
        assert list(read_lines(out)) == list(read(filled.archive_dir, stored=True))[:1]
        letters = tmp_path / "letters.parquet"
        assert archive("export", "--out", str(letters), "--format", "parquet", "--dead-letters")[0] == 0
        assert list(read_lines(letters)) == list(read(filled.archive_dir, dead_letters=True))

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (["--format", "xml"], "--format must be jsonl, csv or parquet, not 'xml'."),
            (["--class", "x"], "--class must be served, feedback, system or item, not 'x'."),
            (["--format", "parquet"], "Parquet needs a file: name one with --out."),
            (["--class", "served", "--dead-letters"], "Dead letters have no class."),
            (["--format", "csv", "--as-stored"], "--as-stored requires --format jsonl."),
            (["--from", "then"], "--from must be a date such as 2026-11-21, or an RFC 3339 time, not 'then'."),
        ],
    )
    def test_bad_usage(self, archive: Archive, options: list[str], sentence: str) -> None:
        """One sentence, exit 2."""
        assert archive("export", "--out", "-", *options) == (2, "", f"recollect: {sentence}\n")

    def test_a_file_that_cannot_be_written(self, archive: Archive, config: Config, tmp_path: Path) -> None:
        """Nothing unfinished is left."""
        commit(config.archive_dir, addition(FIRST))
        code, _, err = archive("export", "--out", str(tmp_path / "no" / "where"))
        assert (code, "cannot be written" in err) == (1, True)
        (tmp_path / "directory").mkdir()
        code, _, err = archive("export", "--out", str(tmp_path / "directory"))
        assert (code, "is a directory" in err) == (2, True)
        assert not list(tmp_path.glob("*.unfinished"))


class TestCompact:
    def test_past_dates(self, archive: Archive, config: Config) -> None:
        """One sentence for each date, and then that there is nothing to do."""
        commit(config.archive_dir, addition(FIRST))
        seal(config.archive_dir)
        code, out, _ = archive("compact", "--before", "2026-11-21")
        assert (code, len(out.splitlines())) == (0, 1)
        assert out.startswith("2026-11-20: 1 lines of 1 files, ")
        assert archive("compact", "--before", "2026-11-21")[1] == "There is nothing to compact before 2026-11-21.\n"
        assert json.loads(archive("compact", "--json", "--before", "2026-11-21")[1]) == []

    def test_today_is_not_past(self, archive: Archive) -> None:
        """More events arrive."""
        code, _, err = archive("compact", "--before", "2999-01-01")
        assert (code, "is not past" in err) == (2, True)


class TestQuery:
    def rows(self, archive: Archive, sql: str) -> list[dict[str, object]]:
        code, out, err = archive("query", sql, "--format", "json")
        assert code == 0, err
        rows: list[dict[str, object]] = json.loads(out)
        return rows

    def test_over_files_of_every_kind(self, archive: Archive, filled: Config) -> None:
        """The views have the same rows, whatever files they are in; uncommitted lines are not among them."""
        assert self.rows(archive, "SELECT class, count(*) AS n FROM events GROUP BY class ORDER BY class") == [
            {"class": "feedback", "n": 2},
            {"class": "served", "n": 1},
            {"class": "system", "n": 1},
        ]
        assert self.rows(archive, "SELECT event_id, value, marks, user_id FROM feedback ORDER BY seq") == [
            {"event_id": "event-2", "value": 4.5, "marks": ["unknown_item"], "user_id": "42"},
            {"event_id": "event-3", "value": None, "marks": [], "user_id": "7"},
        ]
        assert self.rows(archive, "SELECT recommendation_id, item_id, position, score, propensity FROM items") == [
            {"recommendation_id": "list-1", "item_id": "318", "position": 0, "score": 4.71, "propensity": 1.0},
            {"recommendation_id": "list-1", "item_id": "a,b", "position": 1, "score": 3.5, "propensity": 0.5},
        ]
        assert self.rows(archive, 'SELECT kind, "count", reason, producer FROM system') == [
            {"kind": "gap", "count": 5, "reason": "no budget", "producer": PRODUCER}
        ]
        assert self.rows(archive, "SELECT seq, data, settled FROM dead_letters") == [
            {"seq": 9, "data": "{torn", "settled": None}
        ]
        day = "SELECT received_at::DATE AS day FROM events WHERE received_at >= '2026-11-21 08:00' ORDER BY 1"
        assert self.rows(archive, day) == [{"day": "2026-11-21"}, {"day": "2026-11-22"}]

    @pytest.mark.parametrize("compacted", [False, True])
    def test_item_changes(self, archive: Archive, config: Config, compacted: bool) -> None:
        """Have columns of their own, before a compaction and after it, and are exported unchanged."""
        changes = [item_change(), item_change(kind="delete", item_id="a,b", title=None, attributes=None)]
        content = addition(list(enumerate(changes, 1)))
        commit(config.archive_dir, content)
        if compacted:
            seal(config.archive_dir)
            list(compact(config.archive_dir, "2027-01-01"))
        sql = "SELECT kind, item_id, title, attributes->>'year' AS year, hidden, available_until::DATE AS day FROM item"
        assert self.rows(archive, f"{sql} ORDER BY seq") == [
            {
                "kind": "put",
                "item_id": "318",
                "title": "Heat (1995)",
                "year": "1995",
                "hidden": False,
                "day": "2027-01-01",
            },
            {"kind": "delete", "item_id": "a,b", "title": None, "year": None, "hidden": False, "day": "2027-01-01"},
        ]
        lines = archive("export", "--out", "-", "--class", "item")[1].encode().splitlines(keepends=True)
        assert [decode(line).event for line in lines] == changes

    def test_a_date_that_an_older_version_compacted(
        self, archive: Archive, config: Config, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its file lacks the columns of later fields: they are null, and the others are as they were."""
        commit(config.archive_dir, addition(FIRST))
        seal(config.archive_dir)
        older = {name: kind for name, kind in FIELDS.items() if name not in {"state_watermark", "request"}}
        monkeypatch.setattr(compaction, "write_lines", partial(write_lines, fields=older))
        list(compact(config.archive_dir, "2027-01-01"))
        assert self.rows(archive, "SELECT event_id, state_watermark, request FROM served") == [
            {"event_id": "list-1", "state_watermark": None, "request": None}
        ]

    def test_an_empty_archive(self, archive: Archive) -> None:
        """Every view is there."""
        for view in ("events", "served", "feedback", "items", "system", "dead_letters"):
            assert self.rows(archive, f"SELECT * FROM {view}") == []

    def test_every_form(self, archive: Archive, config: Config) -> None:
        """A table, CSV, JSON; values that JSON lacks are null; the order is the query's."""
        commit(config.archive_dir, addition(FIRST))
        sql = "SELECT event_id, NULL AS nothing, 'a,\"b' AS text, 2.5::DECIMAL(4, 2) AS d FROM events ORDER BY seq DESC"
        assert archive("query", sql)[1].splitlines() == [
            "event_id  nothing  text  d",
            'event-2   -        a,"b  2.50',
            'list-1    -        a,"b  2.50',
        ]
        assert archive("query", sql, "--format", "csv")[1].splitlines()[:2] == [
            "event_id,nothing,text,d",
            'event-2,,"a,""b",2.50',
        ]
        (row,) = self.rows(archive, "SELECT 'nan'::DOUBLE AS a, '-inf'::DOUBLE AS b, [1, 2] AS c; -- the end")
        assert row == {"a": None, "b": None, "c": [1, 2]}
        assert archive("query", "SELECT now()", "--format", "csv")[0] == 0
        assert archive("query", "DESCRIBE feedback")[1].splitlines()[1].startswith("event_id")

    def test_a_long_table_ends(self, archive: Archive, config: Config) -> None:
        """With a sentence; the other formats have all rows."""
        commit(config.archive_dir, addition(FIRST))
        code, out, err = archive("query", "SELECT range AS n FROM range(1500)")
        assert (code, len(out.splitlines()), "ends after 1000 rows" in err) == (0, 1001, True)
        assert len(archive("query", "SELECT range AS n FROM range(1500)", "--format", "csv")[1].splitlines()) == 1501

    @pytest.mark.parametrize(
        "sql",
        [
            "DROP VIEW events",
            "CREATE TABLE x AS SELECT 1",
            "INSERT INTO settled VALUES ('a', 'b')",
            "SELECT 1; SELECT 2",
            "COPY (SELECT 1) TO '/tmp/x'",
            "COPY events TO '/proc/self/fd/1'",
            "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/x'",
            "SET lock_configuration = false",
            "PRAGMA enable_profiling",
            "ATTACH '/tmp/x.db'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "CALL pragma_version()",
            "EXPORT DATABASE '/tmp/x'",
            "",
            "not sql",
            "SELECT nothing FROM events",
            "SELECT * FROM nowhere",
            "SELECT 'x'::INTEGER",
            "SELECT * FROM read_text('/etc/passwd')",
            "SELECT * FROM read_csv('/etc/passwd')",
            "SELECT * FROM '/etc/passwd'",
            "SELECT * FROM glob('/*')",
            "SELECT * FROM read_blob('/proc/self/environ')",
            "SELECT * FROM read_parquet('http://127.0.0.1:1/x.parquet')",
            "SELECT * FROM read_json('{home}/archive/catalogue.sqlite3')",
            "SELECT * FROM sqlite_scan('{home}/archive/catalogue.sqlite3', 'lease')",
            "SELECT * FROM query('DROP VIEW events')",
            "SELECT * FROM config",
        ],
    )
    def test_nothing_else_is_possible(self, archive: Archive, config: Config, sql: str) -> None:
        """No change, no other file, no network, no setting, no variable of this process: one sentence, exit 2."""
        commit(config.archive_dir, addition(FIRST))
        before = list(read(config.archive_dir))
        code, out, err = archive("query", sql.replace("{home}", str(config.home)))
        assert (code, out) == (2, "")
        assert err.startswith("recollect: ")
        assert err.count("\n") == 1
        assert list(read(config.archive_dir)) == before

    def test_the_archives_own_files_cannot_be_written(self, archive: Archive, filled: Config) -> None:
        """They are the only ones that the engine may open."""
        before = {path: path.read_bytes() for path in filled.archive_dir.glob("*/*")}
        for number in range(3, 30):
            archive("query", f"COPY (SELECT 1) TO '/proc/self/fd/{number}'")
        assert {path: path.read_bytes() for path in filled.archive_dir.glob("*/*")} == before

    def test_without_the_extra(self, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
        """One sentence names what to install."""
        monkeypatch.setitem(sys.modules, "duckdb", None)
        code, out, err = archive("query", "SELECT 1")
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "pip install 'recollect[query]'" in err

    def test_a_missing_file_is_an_error(self, archive: Archive, config: Config) -> None:
        """An answer from half an archive would be wrong."""
        commit(config.archive_dir, addition(FIRST))
        min(config.archive_dir.glob("date=*/*")).unlink()
        code, out, err = archive("query", "SELECT count(*) FROM events")
        assert (code, out) == (1, "")
        assert "not on the disk" in err
