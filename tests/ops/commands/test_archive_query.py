import json
import sys
from functools import partial

import pytest

from service.config import Config
from telemetry.archive import compaction
from telemetry.archive.archive_reader import read
from telemetry.archive.compaction import compact
from telemetry.archive.parquet_file import FIELDS, write_lines
from telemetry.events import decode
from tests.support.archives.archive_commits import PRODUCER, addition, commit, seal
from tests.support.archives.archived_days import FIRST, Archive
from tests.support.sample_events import item_change


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
