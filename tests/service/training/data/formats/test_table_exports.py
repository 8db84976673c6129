"""Tables as spreadsheets and databases export them."""

from pathlib import Path

import pytest

from service.errors import DataError
from service.training.data import datasets
from service.training.data.formats.text_table import read_table
from tests.support.archives.small_tables import TRIPLES, read_with, write
from tests.support.interactions import times, triples
from tests.support.models.source_rows import read_rows, row_triples


class TestSpreadsheetExports:
    def test_semicolons_and_decimal_commas(self, tmp_path: Path) -> None:
        """As Excel writes them in most of Europe."""
        path = write(tmp_path / "t.csv", "user;item;rating\r\nann;p-1;4,5\r\nbob;p-2;2\r\n")
        assert triples(datasets.read(path)) == TRIPLES

    def test_the_first_line_names_the_separator(self, tmp_path: Path) -> None:
        """It is no row, and a bad row keeps its number."""
        path = write(tmp_path / "t.csv", "sep=;\r\nuser;item;rating\r\nann;p-1;4,5\r\nbob;p-2;2\r\nbob;p-3;x\r\n")
        data = datasets.read(path)
        assert triples(data) == TRIPLES
        assert data.report.bad_examples[0].startswith("t.csv:5: the rating 'x'")

    def test_three_digits_may_be_thousands(self, tmp_path: Path) -> None:
        """The refusal names the option that reads them."""
        path = write(tmp_path / "t.csv", "user;item;rating\nann;p-1;1,234\nbob;p-2;2,500\nbob;p-3;3,125\n")
        with pytest.raises(DataError, match="'1,234' is not a finite number; --decimal comma reads it"):
            datasets.read(path)
        assert read_with(path, decimal="comma").ratings.tolist() == [pytest.approx(1.234), 2.5, 3.125]

    def test_quoted_decimal_commas(self, tmp_path: Path) -> None:
        """Commas may also separate the fields."""
        path = write(tmp_path / "t.csv", 'user,item,rating\nann,p-1,"4,5"\nbob,p-2,2\n')
        assert triples(datasets.read(path)) == TRIPLES

    @pytest.mark.parametrize(
        ("dates", "text", "expected"),
        [
            ("day-first", "02/01/2021 03:04", 1609556640),
            ("day-first", "02.01.2021 03:04:05", 1609556645),
            ("day-first", "2-1-2021", 1609545600),
            ("month-first", "01/02/2021 3:04:05 AM", 1609556645),
            ("month-first", "1/2/2021 12:00 PM", 1609588800),
            ("day-first", "2021-01-02T03:04:05Z", 1609556645),
            ("day-first", "1609556645", 1609556645),
        ],
    )
    def test_dates_by_option(self, tmp_path: Path, dates: str, text: str, expected: int) -> None:
        """ISO 8601 and unix time are read beside them."""
        path = write(tmp_path / "t.csv", f"user,item,date\nann,p-1,{text}\n")
        assert times(read_with(path, dates=dates)) == [expected]

    @pytest.mark.parametrize("text", ["31/31/2021", "01/02/21", "1/2-2021", "01/02/2021 13:00 PM"])
    def test_invalid_dates(self, tmp_path: Path, text: str) -> None:
        """A two-digit year, mixed signs and months beyond twelve are bad rows."""
        path = write(tmp_path / "t.csv", f"user,item,date\nann,p-1,{text}\nann,p-2,1/2/2021\n")
        assert read_with(path, dates="month-first").report.n_bad_rows == 1

    def test_the_option_is_named(self, tmp_path: Path) -> None:
        """The order of day and month is ambiguous."""
        path = write(tmp_path / "t.csv", "user,item,date\nann,p-1,01/02/2021\n")
        with pytest.raises(DataError, match="--dates day-first or --dates month-first reads it"):
            datasets.read(path)


class TestDatabaseExports:
    def test_nulls_of_postgres(self, tmp_path: Path) -> None:
        r"""\N is no user and no rating."""
        path = write(tmp_path / "t.tsv", "user\titem\trating\nann\tp-1\t4.5\n\\N\tp-1\t3\nbob\tp-2\t2\nbob\tp-3\t\\N\n")
        data = datasets.read(path)
        assert triples(data) == TRIPLES
        assert data.report.bad_examples == ("t.tsv:3: the user id is empty", "t.tsv:5: the rating is empty")

    @pytest.mark.parametrize("block_bytes", [1 << 20, 90, 7])
    def test_quoted_fields_of_several_lines(self, tmp_path: Path, block_bytes: int) -> None:
        """They are one row, with blocks of any size, and lines keep their numbers."""
        text = (
            "user,item,rating,text\n"
            'ann,p-1,4.5,"lovely,\n\nreally ""lovely""\n"\n'
            "bob,p-2,2,plain\n"
            'bob,p-3,x,"one\ntwo"\r\n'
            "bob,p-4,y,\n"
        )
        rows = read_rows(read_table, write(tmp_path / "t.csv", text), block_bytes=block_bytes)
        assert row_triples(rows) == TRIPLES
        assert [example.partition(" ")[0] for example in rows.bad_examples] == ["t.csv:7:", "t.csv:9:"]
        assert rows.n_rows == 4

    @pytest.mark.parametrize("block_bytes", [1 << 20, 20])
    def test_stray_quotes_affect_their_own_lines(self, tmp_path: Path, block_bytes: int) -> None:
        """Rows between two of them are not read as a field of several lines."""
        text = 'user,item,rating\nann,"p,3\nann,p-1,4.5\nbob,p-2,2\n"bob,p,3\ncy,p-3,1\n'
        rows = read_rows(read_table, write(tmp_path / "t.csv", text), block_bytes=block_bytes)
        assert row_triples(rows) == [*TRIPLES, ("cy", "p-3", 1.0)]
        assert rows.n_bad_rows == 2

    def test_an_id_of_two_lines_is_bad(self, tmp_path: Path) -> None:
        """A newline is a control character, which no id may hold."""
        path = write(tmp_path / "t.csv", 'user,item,rating\n"a\nnn",p-1,4.5\nbob,p-2,2\n')
        data = datasets.read(path)
        assert triples(data) == TRIPLES[1:]
        assert data.report.bad_examples[0].startswith("t.csv:2: the user id")
