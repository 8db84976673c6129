"""Several sources, part files, and columns by option."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import DataError, UsageError
from service.training.data import data_request, datasets
from service.training.data.data_request import DataRequest
from tests.support.archives.small_tables import HEADER, ROWS, TRIPLES, read_with, write
from tests.support.interactions import times, triples


class TestParts:
    def test_a_directory_of_csv_parts(self, tmp_path: Path) -> None:
        """Each has its header, compressed or not; their writer's notes do not count."""
        write(tmp_path / "out" / "part-0.csv", HEADER + "ann,p-1,4.5,1609556645\n")
        write(tmp_path / "out" / "part-1.csv.gz", gzip.compress(f"{HEADER}bob,p-2,2,1609556700\n".encode()))
        write(tmp_path / "out" / "_SUCCESS.csv", "")
        data = datasets.read(str(tmp_path / "out"))
        assert triples(data) == TRIPLES
        assert data.fingerprint == datasets.fingerprint(str(tmp_path / "out"))

    def test_hive_partitions(self, tmp_path: Path) -> None:
        """Their names are columns: here the time, and one that is ignored."""
        for day, user in (("2021-01-01", "ann"), ("2021-01-02", "bob")):
            table = pa.table({"user": [user], "item": ["p-1"], "rating": [3.0]})
            (tmp_path / "out" / f"date={day}" / "country=d%20e").mkdir(parents=True)
            pq.write_table(table, tmp_path / "out" / f"date={day}" / "country=d%20e" / "part-0.parquet")
        data = datasets.read(str(tmp_path / "out"))
        assert triples(data) == [("ann", "p-1", 3.0), ("bob", "p-1", 3.0)]
        assert times(data) == [1609459200, 1609545600]
        assert "timestamp = date" in data.report.columns[0]
        assert "ignored: country" in data.report.columns[0]

    def test_a_repeated_column_in_parquet(self, tmp_path: Path) -> None:
        """One that is read is refused; one that is ignored does not matter."""
        strings = [pa.array(["ann"]), pa.array(["p-1"]), pa.array([4.5]), pa.array([1.0])]
        pq.write_table(pa.Table.from_arrays(strings, ["user", "item", "rating", "rating"]), tmp_path / "t.parquet")
        with pytest.raises(DataError, match=r"t\.parquet has several columns called 'rating'"):
            datasets.read(str(tmp_path / "t.parquet"))
        pq.write_table(pa.Table.from_arrays(strings, ["user", "item", "x", "x"]), tmp_path / "u.parquet")
        assert triples(datasets.read(str(tmp_path / "u.parquet"))) == [("ann", "p-1", 1.0)]

    def test_a_boolean_rating_in_parquet(self, tmp_path: Path) -> None:
        """It is a scale of 0 and 1, with a note."""
        table = pa.table({"user": ["a", "b"], "item": ["i", "j"], "rating": [True, False]})
        pq.write_table(table, tmp_path / "t.parquet")
        data = datasets.read(str(tmp_path / "t.parquet"))
        assert data.ratings.tolist() == [1.0, 0.0]
        assert "All ratings are 0 or 1" in data.report.notes[0]


class TestMerging:
    def test_the_later_source_wins(self, tmp_path: Path) -> None:
        """Of a pair in both its row stays, with any times; the report counts the other."""
        first = write(tmp_path / "old.csv", HEADER + "ann,p-1,1,1700000000\nann,p-3,5,1609556645\n")
        second = write(tmp_path / "new.csv", HEADER + ROWS)
        data = read_with(first, second)
        assert sorted(triples(data)) == [("ann", "p-1", 4.5), ("ann", "p-3", 5.0), ("bob", "p-2", 2.0)]
        assert data.report.n_duplicates == 1
        assert "2 sources were merged" in data.report.notes[0]
        assert data.fingerprint == datasets.fingerprint(data_request.parse([first, second]))
        assert data.fingerprint != datasets.fingerprint(data_request.parse([second, first]))

    def test_with_the_demo_set(self, tmp_path: Path) -> None:
        """Any kind of source merges with any other."""
        data = read_with("demo:10x10x50", write(tmp_path / "t.csv", HEADER + ROWS))
        assert len(data) == 52
        assert data.catalogue.titles

    def test_sources_must_agree(self, tmp_path: Path) -> None:
        """Missing ratings or times are not invented."""
        first = write(tmp_path / "a.csv", HEADER + ROWS)
        second = write(tmp_path / "b.csv", "user,item\nann,p-1\n")
        with pytest.raises(DataError, match=r"a\.csv has ratings and .*b\.csv has none"):
            read_with(first, second)


class TestColumns:
    def test_names_by_option(self, tmp_path: Path) -> None:
        """They are read as asked, an empty one is left out, and the report has the role of each."""
        path = write(tmp_path / "t.csv", "CustomerNo,SKU,score,When,event_type\nann,p-1,4.5,1609556645,view\n")
        data = read_with(path, columns="user=CustomerNo,item=sku,rating=,time=When")
        assert triples(data) == [("ann", "p-1", 1.0)]
        assert times(data) == [1609556645]
        assert data.report.columns[0] == (
            "t.csv: user = CustomerNo, item = SKU, timestamp = When; no rating; ignored: score, event_type."
        )
        assert "'event_type'" in data.report.columns[1] or "event_type looks like" in data.report.columns[1]

    def test_json_and_parquet_alike(self, tmp_path: Path) -> None:
        """The names of fields and of columns."""
        options = {"columns": "user=Kunde,item=Artikel,rating=Note"}
        path = write(tmp_path / "t.jsonl", '{"Kunde": "ann", "Artikel": "p-1", "Note": 4.5, "user": "x"}\n')
        assert triples(read_with(path, **options)) == TRIPLES[:1]
        pq.write_table(pa.table({"Kunde": ["ann"], "Artikel": ["p-1"], "Note": [4.5]}), tmp_path / "t.parquet")
        assert triples(read_with(str(tmp_path / "t.parquet"), **options)) == TRIPLES[:1]

    @pytest.mark.parametrize("header", ["", "a,b,c,d\n"])
    def test_numbers(self, tmp_path: Path, header: str) -> None:
        """They count from 1, with a header and without."""
        path = write(tmp_path / "t.csv", f"{header}4.5,x,p-1,ann\n2,y,p-2,bob\n")
        assert triples(read_with(path, columns="user=4,item=3,rating=1")) == TRIPLES

    @pytest.mark.parametrize(
        ("columns", "sentence"),
        [
            ("user=Nobody,item=item", "--columns asks for 'Nobody', and there is only user, item, rating"),
            ("user=1,item=9", "has columns 1 to 3, and --columns asks for item=9"),
            ("user=1", "--columns by number needs both user and item"),
        ],
    )
    def test_missing_columns_by_option(self, tmp_path: Path, columns: str, sentence: str) -> None:
        """The sentence lists the columns."""
        path = write(tmp_path / "t.csv", "user,item,rating\nann,p-1,4.5\n")
        with pytest.raises(DataError) as refusal:
            read_with(path, columns=columns)
        assert sentence in str(refusal.value)

    @pytest.mark.parametrize(
        ("columns", "sentence"),
        [
            ("user", "--columns has 'user'"),
            ("who=x", "--columns has 'who=x'"),
            ("user=,item=x", "--columns leaves out the user"),
            ("user=x,user=y", "--columns names user twice"),
            ("user=x,item=x", "--columns gives the column 'x' two roles"),
        ],
    )
    def test_invalid_options(self, columns: str, sentence: str) -> None:
        """They are refused before anything is read."""
        with pytest.raises(UsageError) as refusal:
            data_request.parse(["x"], columns=columns)
        assert sentence in str(refusal.value)

    def test_a_repeated_name_in_a_header(self, tmp_path: Path) -> None:
        """It is ambiguous; a number resolves it."""
        path = write(tmp_path / "t.csv", "user,item,rating,rating\nann,p-1,1,4.5\n")
        with pytest.raises(DataError, match="several columns called 'rating'"):
            datasets.read(path)
        assert triples(read_with(path, columns="user=1,item=2,rating=4")) == TRIPLES[:1]

    def test_the_options_change_the_fingerprint(self, tmp_path: Path) -> None:
        """The same bytes read with other options are other data."""
        path = write(tmp_path / "t.csv", HEADER + ROWS)
        plain, mapped = data_request.parse([path]), data_request.parse([path], columns="rating=")
        assert datasets.fingerprint(plain) == datasets.fingerprint(path)
        assert datasets.fingerprint(mapped) != datasets.fingerprint(path)
        assert read_with(path, columns="rating=").fingerprint == datasets.fingerprint(mapped)

    def test_a_request_becomes_options_again(self) -> None:
        """A child process parses the same request."""
        request = data_request.parse(
            ["a", "b"], columns="user=x,time=", dates="day-first", encoding="latin-1", decimal="comma"
        )
        words = request.argv()
        given = {name[2:]: value for name, value in zip(words[::2], words[1::2], strict=True) if name != "--data"}
        assert data_request.parse(["a", "b"], **given) == request
        assert words[:4] == ["--data", "a", "--data", "b"]
        assert data_request.as_request("a") == DataRequest(("a",))


class TestWarningsOfFiles:
    @pytest.mark.parametrize(
        ("rows", "sentence"),
        [
            ("a,i,3,1609556645\nb,j,3,1609556646\n", "All ratings are 3"),
            ("a,i,1,1609556645\nb,j,0,1609556646\n", "All ratings are 0 or 1"),
            ("a,i,1,20210102\nb,j,2,20210103\n", "All times lie in 1970"),
            ("a,i,1,1609556645\nb,j,2,1609556645\n", "All times are the same"),
        ],
    )
    def test_each_warning(self, tmp_path: Path, rows: str, sentence: str) -> None:
        """Each is one sentence, and the rows are read."""
        data = datasets.read(write(tmp_path / "t.csv", HEADER + rows))
        assert len(data) == 2
        assert [note for note in data.report.notes if note.startswith(sentence)] != []

    def test_good_data_has_none(self, tmp_path: Path) -> None:
        """It has no notes."""
        assert datasets.read(write(tmp_path / "t.csv", HEADER + ROWS)).report.notes == ()
