import csv
import io
import json
import os
from pathlib import Path

import pytest

from ops.commands.archive_export import rename_into_place
from service.config import Config
from telemetry.archive.archive_reader import read
from telemetry.archive.parquet_file import read_lines
from tests.support.archives.archive_commits import addition, commit, seal
from tests.support.archives.archived_days import FIRST, ITEMS, SECOND, Archive


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
