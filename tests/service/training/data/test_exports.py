"""Files as people export them: packed, in other encodings, in parts, merged, with columns of other names."""

import bz2
import gzip
import hashlib
import lzma
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import DataError, UsageError
from service.training.data import data_request, datasets
from service.training.data.data_request import DataRequest
from service.training.data.files import piped_input
from service.training.data.formats.text_table import read_table
from service.training.interactions import Interactions
from tests.support.interactions import times, triples
from tests.support.source_rows import read_rows, row_triples

HEADER = "user_id,item_id,rating,timestamp\n"
ROWS = "ann,p-1,4.5,1609556645\nbob,p-2,2,1609556700\n"
TRIPLES = [("ann", "p-1", 4.5), ("bob", "p-2", 2.0)]


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def asked(*sources: str, **options: str) -> Interactions:
    return datasets.read(data_request.parse(sources, **options))


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
}


class TestPacked:
    @pytest.mark.parametrize("suffix", PACKERS)
    @pytest.mark.parametrize("name", ["t.csv.", "anything."])
    def test_a_table(self, tmp_path: Path, suffix: str, name: str) -> None:
        """It is read whatever it is packed with, and its fingerprint is that of the packed bytes."""
        packed = PACKERS[suffix]((HEADER + ROWS).encode())
        path = write(tmp_path / f"{name}{suffix}", packed)
        data = datasets.read(path)
        assert triples(data) == TRIPLES
        assert data.fingerprint == datasets.fingerprint(path) == f"sha256:{hashlib.sha256(packed).hexdigest()}"

    @pytest.mark.parametrize("suffix", PACKERS)
    def test_json_lines(self, tmp_path: Path, suffix: str) -> None:
        """The format is told by what is inside."""
        path = write(tmp_path / f"t.{suffix}", PACKERS[suffix](b'{"user": "ann", "item": "p-1", "rating": 4.5}\n'))
        assert triples(datasets.read(path)) == TRIPLES[:1]

    @pytest.mark.parametrize("suffix", PACKERS)
    def test_a_broken_one_is_refused(self, tmp_path: Path, suffix: str) -> None:
        """What is missing is not left out in silence."""
        packed = PACKERS[suffix]((HEADER + "".join(f"u{i},i{i * 7919 % 997},3,7\n" for i in range(5000))).encode())
        path = write(tmp_path / f"t.csv.{suffix}", packed[: len(packed) // 2])
        with pytest.raises(DataError, match=r"t\.csv\.\w+ is broken: \w+ cannot decompress it"):
            datasets.read(path)

    def test_a_compressed_parquet_file_is_refused(self, tmp_path: Path) -> None:
        """It cannot be read from front to back."""
        path = write(tmp_path / "t.parquet.gz", gzip.compress(b"PAR1 and more"))
        with pytest.raises(DataError, match="compressed with gzip: decompress it"):
            datasets.read(path)

    def test_a_directory_of_packed_movielens_files(self, tmp_path: Path) -> None:
        """Titles are found beside them."""
        write(tmp_path / "ratings.csv.gz", gzip.compress(b"userId,movieId,rating,timestamp\n1,2,3,1609556645\n"))
        write(tmp_path / "movies.csv", "movieId,title,genres\n2,Jumanji (1995),Adventure\n")
        data = datasets.read(str(tmp_path))
        assert triples(data) == [("1", "2", 3.0)]
        assert data.catalogue.titles == {"2": "Jumanji (1995)"}


class TestZip:
    def test_one_file(self, tmp_path: Path) -> None:
        """A single file is read whatever its name; what macOS adds does not count."""
        path = tmp_path / "export.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("folder/export.txt", HEADER + ROWS)
            archive.writestr("__MACOSX/folder/._export.txt", "nothing")
        data = datasets.read(str(path))
        assert triples(data) == TRIPLES
        assert data.fingerprint == datasets.fingerprint(str(path))
        assert data.fingerprint == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"

    def test_movielens(self, tmp_path: Path) -> None:
        """The archive as it is downloaded, with its directory, its titles and its README."""
        path = tmp_path / "ml-1m.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ml-1m/ratings.dat", "1::2::5::978300760\n")
            archive.writestr("ml-1m/movies.dat", "2::Jumanji (1995)::Adventure\n")
            archive.writestr("ml-1m/README", "about")
        data = datasets.read(str(path))
        assert triples(data) == [("1", "2", 5.0)]
        assert data.catalogue.titles == {"2": "Jumanji (1995)"}

    def test_bad_rows_are_named_by_their_file(self, tmp_path: Path) -> None:
        """Not by a temporary one."""
        path = tmp_path / "export.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ratings.csv", f"{HEADER}{ROWS}ann,p-9,x,1609556645\n")
        assert datasets.read(str(path)).report.bad_examples == ("ratings.csv:4: the rating 'x' is not a finite number",)

    @pytest.mark.parametrize(
        ("names", "sentence"),
        [
            ((), "is a zip archive without files in it"),
            (("[Content_Types].xml", "xl/workbook.xml"), "is a spreadsheet or another office document"),
            (("a.txt", "b.md"), "no CSV, TSV, JSONL or Parquet files"),
        ],
    )
    def test_refusals(self, tmp_path: Path, names: tuple[str, ...], sentence: str) -> None:
        """They name the archive."""
        path = tmp_path / "export.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "x")
        with pytest.raises(DataError, match=r"export\.zip") as refusal:
            datasets.read(str(path))
        assert sentence in str(refusal.value)

    def test_what_does_not_fit_the_disk(self, tmp_path: Path) -> None:
        """A bomb is refused by what it promises, before a byte is unpacked."""
        path = tmp_path / "bomb.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("ratings.csv", "x" * 1000)
        content = path.read_bytes()
        promised = (0xFFFF_FFF0).to_bytes(4, "little")
        # The size stands 24 bytes into the entry of the central directory; 2000 entries promise 8 TB.
        place = content.index(b"PK\x01\x02")
        entry = content[place : content.index(b"PK\x05\x06")]
        entry = entry[:24] + promised + entry[28:]
        count = (2000).to_bytes(2, "little") * 2
        size = (len(entry) * 2000).to_bytes(4, "little")
        end = b"PK\x05\x06" + bytes(4) + count + size + place.to_bytes(4, "little") + bytes(2)
        path.write_bytes(content[:place] + entry * 2000 + end)
        with pytest.raises(DataError, match=r"unpacks to 8,589,934,560,000 bytes, and .* has room for"):
            datasets.read(str(path))


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
    def test_a_byte_order_mark_says_it(self, tmp_path: Path, encoding: str) -> None:
        """Nothing else is needed, for tables and for JSON lines, packed or not."""
        path = write(tmp_path / "t.csv", (HEADER + "änn,p-1,4.5,7\n").encode(encoding))
        assert triples(datasets.read(path)) == [("änn", "p-1", 4.5)]
        path = write(tmp_path / "j.gz", gzip.compress('{"user": "änn", "item": "p-1"}\n'.encode(encoding)))
        assert triples(datasets.read(path)) == [("änn", "p-1", 1.0)]

    @pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "shift_jis"])
    def test_an_option_says_it(self, tmp_path: Path, encoding: str) -> None:
        """Any encoding that Python knows."""
        user = "ユーザ" if encoding == "shift_jis" else "änn"
        path = write(tmp_path / "t.csv", (HEADER + f"{user},p-1,4.5,7\n").encode(encoding))
        assert triples(asked(path, encoding=encoding)) == [(user, "p-1", 4.5)]

    def test_the_wrong_one_is_refused(self, tmp_path: Path) -> None:
        """The sentence names file and encoding."""
        path = write(tmp_path / "t.csv", (HEADER + "änn,p-1,4.5,7\n").encode("latin-1"))
        with pytest.raises(DataError, match=r"t\.csv is not encoded in ascii"):
            asked(path, encoding="ascii")

    @pytest.mark.parametrize("encoding", ["nonsense", "base64", ""])
    def test_what_is_no_encoding(self, encoding: str) -> None:
        """Is a wrong option, and Python's other codecs are none."""
        with pytest.raises(UsageError, match="--encoding names no encoding of text"):
            data_request.parse(["x"], encoding=encoding)


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
        """They are refused with the option that reads them, which then does."""
        path = write(tmp_path / "t.csv", "user;item;rating\nann;p-1;1,234\nbob;p-2;2,500\nbob;p-3;3,125\n")
        with pytest.raises(DataError, match="'1,234' is not a finite number; --decimal comma reads it"):
            datasets.read(path)
        assert asked(path, decimal="comma").ratings.tolist() == [pytest.approx(1.234), 2.5, 3.125]

    def test_quoted_decimal_commas(self, tmp_path: Path) -> None:
        """Also where commas separate the fields."""
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
        assert times(asked(path, dates=dates)) == [expected]

    @pytest.mark.parametrize("text", ["31/31/2021", "01/02/21", "1/2-2021", "01/02/2021 13:00 PM"])
    def test_dates_that_are_none(self, tmp_path: Path, text: str) -> None:
        """A two-digit year, mixed signs and months beyond twelve are bad rows."""
        path = write(tmp_path / "t.csv", f"user,item,date\nann,p-1,{text}\nann,p-2,1/2/2021\n")
        assert asked(path, dates="month-first").report.n_bad_rows == 1

    def test_without_the_option_it_is_named(self, tmp_path: Path) -> None:
        """Which of day and month comes first cannot be known."""
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
        """They are one row, wherever blocks end, and lines keep their numbers."""
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
    def test_stray_quotes_cost_their_own_lines(self, tmp_path: Path, block_bytes: int) -> None:
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


class TestParts:
    def test_a_directory_of_csv_parts(self, tmp_path: Path) -> None:
        """Each with its header, packed or not; what their writer left beside them does not count."""
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
        """One that is needed is refused by its name; one that is ignored does not matter."""
        strings = [pa.array(["ann"]), pa.array(["p-1"]), pa.array([4.5]), pa.array([1.0])]
        pq.write_table(pa.Table.from_arrays(strings, ["user", "item", "rating", "rating"]), tmp_path / "t.parquet")
        with pytest.raises(DataError, match=r"t\.parquet has several columns called 'rating'"):
            datasets.read(str(tmp_path / "t.parquet"))
        pq.write_table(pa.Table.from_arrays(strings, ["user", "item", "x", "x"]), tmp_path / "u.parquet")
        assert triples(datasets.read(str(tmp_path / "u.parquet"))) == [("ann", "p-1", 1.0)]

    def test_a_boolean_rating_in_parquet(self, tmp_path: Path) -> None:
        """It is a scale of 0 and 1, which is said."""
        table = pa.table({"user": ["a", "b"], "item": ["i", "j"], "rating": [True, False]})
        pq.write_table(table, tmp_path / "t.parquet")
        data = datasets.read(str(tmp_path / "t.parquet"))
        assert data.ratings.tolist() == [1.0, 0.0]
        assert "All ratings are 0 or 1" in data.report.notes[0]


class TestMerging:
    def test_the_later_source_wins(self, tmp_path: Path) -> None:
        """Of a pair that both have its row stays, whatever the times; nothing is dropped in silence."""
        first = write(tmp_path / "old.csv", HEADER + "ann,p-1,1,1700000000\nann,p-3,5,1609556645\n")
        second = write(tmp_path / "new.csv", HEADER + ROWS)
        data = asked(first, second)
        assert sorted(triples(data)) == [("ann", "p-1", 4.5), ("ann", "p-3", 5.0), ("bob", "p-2", 2.0)]
        assert data.report.n_duplicates == 1
        assert "2 sources were merged" in data.report.notes[0]
        assert data.fingerprint == datasets.fingerprint(data_request.parse([first, second]))
        assert data.fingerprint != datasets.fingerprint(data_request.parse([second, first]))

    def test_with_the_demo_set(self, tmp_path: Path) -> None:
        """Any kind of source merges with any other."""
        data = asked("demo:10x10x50", write(tmp_path / "t.csv", HEADER + ROWS))
        assert len(data) == 52
        assert data.catalogue.titles

    def test_sources_must_agree(self, tmp_path: Path) -> None:
        """SourceRows without ratings or times are not made up."""
        first = write(tmp_path / "a.csv", HEADER + ROWS)
        second = write(tmp_path / "b.csv", "user,item\nann,p-1\n")
        with pytest.raises(DataError, match=r"a\.csv has ratings and .*b\.csv has none"):
            asked(first, second)


class TestColumns:
    def test_names_of_ones_own(self, tmp_path: Path) -> None:
        """They are taken as asked, an empty one is left out, and the report says what became of all."""
        path = write(tmp_path / "t.csv", "CustomerNo,SKU,score,When,event_type\nann,p-1,4.5,1609556645,view\n")
        data = asked(path, columns="user=CustomerNo,item=sku,rating=,time=When")
        assert triples(data) == [("ann", "p-1", 1.0)]
        assert times(data) == [1609556645]
        assert data.report.columns[0] == (
            "t.csv: user = CustomerNo, item = SKU, timestamp = When; no rating; ignored: score, event_type."
        )
        assert "'event_type'" in data.report.columns[1] or "event_type looks like" in data.report.columns[1]

    def test_json_and_parquet_alike(self, tmp_path: Path) -> None:
        """The names are those of fields and of columns."""
        options = {"columns": "user=Kunde,item=Artikel,rating=Note"}
        path = write(tmp_path / "t.jsonl", '{"Kunde": "ann", "Artikel": "p-1", "Note": 4.5, "user": "x"}\n')
        assert triples(asked(path, **options)) == TRIPLES[:1]
        pq.write_table(pa.table({"Kunde": ["ann"], "Artikel": ["p-1"], "Note": [4.5]}), tmp_path / "t.parquet")
        assert triples(asked(str(tmp_path / "t.parquet"), **options)) == TRIPLES[:1]

    @pytest.mark.parametrize("header", ["", "a,b,c,d\n"])
    def test_numbers(self, tmp_path: Path, header: str) -> None:
        """They count from 1, with a header and without."""
        path = write(tmp_path / "t.csv", f"{header}4.5,x,p-1,ann\n2,y,p-2,bob\n")
        assert triples(asked(path, columns="user=4,item=3,rating=1")) == TRIPLES

    @pytest.mark.parametrize(
        ("columns", "sentence"),
        [
            ("user=Nobody,item=item", "--columns asks for 'Nobody', and there is only user, item, rating"),
            ("user=1,item=9", "has columns 1 to 3, and --columns asks for item=9"),
            ("user=1", "--columns by number needs both user and item"),
        ],
    )
    def test_columns_that_are_not_there(self, tmp_path: Path, columns: str, sentence: str) -> None:
        """The sentence says what there is."""
        path = write(tmp_path / "t.csv", "user,item,rating\nann,p-1,4.5\n")
        with pytest.raises(DataError) as refusal:
            asked(path, columns=columns)
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
    def test_options_that_cannot_be_meant(self, columns: str, sentence: str) -> None:
        """They are refused before anything is read."""
        with pytest.raises(UsageError) as refusal:
            data_request.parse(["x"], columns=columns)
        assert sentence in str(refusal.value)

    def test_a_repeated_name_in_a_header(self, tmp_path: Path) -> None:
        """Which of them is meant cannot be known; a number tells."""
        path = write(tmp_path / "t.csv", "user,item,rating,rating\nann,p-1,1,4.5\n")
        with pytest.raises(DataError, match="several columns called 'rating'"):
            datasets.read(path)
        assert triples(asked(path, columns="user=1,item=2,rating=4")) == TRIPLES[:1]

    def test_the_options_change_the_fingerprint(self, tmp_path: Path) -> None:
        """The same bytes read in another way are other data; read as they are, they are themselves."""
        path = write(tmp_path / "t.csv", HEADER + ROWS)
        plain, mapped = data_request.parse([path]), data_request.parse([path], columns="rating=")
        assert datasets.fingerprint(plain) == datasets.fingerprint(path)
        assert datasets.fingerprint(mapped) != datasets.fingerprint(path)
        assert asked(path, columns="rating=").fingerprint == datasets.fingerprint(mapped)

    def test_a_request_becomes_options_again(self) -> None:
        """What a parent asks for its child reads as the same request."""
        asked_for = data_request.parse(
            ["a", "b"], columns="user=x,time=", dates="day-first", encoding="latin-1", decimal="comma"
        )
        words = asked_for.argv()
        given = {name[2:]: value for name, value in zip(words[::2], words[1::2], strict=True) if name != "--data"}
        assert data_request.parse(["a", "b"], **given) == asked_for
        assert words[:4] == ["--data", "a", "--data", "b"]
        assert data_request.as_request("a") == DataRequest(("a",))


class TestSuspicions:
    @pytest.mark.parametrize(
        ("rows", "sentence"),
        [
            ("a,i,3,1609556645\nb,j,3,1609556646\n", "All ratings are 3"),
            ("a,i,1,1609556645\nb,j,0,1609556646\n", "All ratings are 0 or 1"),
            ("a,i,1,20210102\nb,j,2,20210103\n", "All times lie in 1970"),
            ("a,i,1,1609556645\nb,j,2,1609556645\n", "All times are the same"),
        ],
    )
    def test_what_looks_wrong_is_said(self, tmp_path: Path, rows: str, sentence: str) -> None:
        """Each is one sentence, and the rows are read all the same."""
        data = datasets.read(write(tmp_path / "t.csv", HEADER + rows))
        assert len(data) == 2
        assert [note for note in data.report.notes if note.startswith(sentence)] != []

    def test_good_data_has_none(self, tmp_path: Path) -> None:
        """What looks right is not talked about."""
        assert datasets.read(write(tmp_path / "t.csv", HEADER + ROWS)).report.notes == ()


def test_standard_input() -> None:
    """It is read as any file, once, and leaves nothing behind."""
    code = (
        "from service.training.data import datasets\nfrom service.training.data.files import piped_input\n"
        "data = datasets.read('-')\n"
        "again = datasets.read('-')\n"
        "print(len(data), len(again), data.report.source, piped_input.copy_of_standard_input())"
    )
    packed = gzip.compress((HEADER + ROWS).encode())
    done = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True, timeout=60)
    n, again, source, path = done.stdout.decode().split()
    assert (n, again, source) == ("2", "2", "-")
    assert not Path(path).exists()


def test_standard_input_is_named_once() -> None:
    """It cannot be two sources."""
    with pytest.raises(UsageError, match="give --data - only once"):
        data_request.parse(["-", "-"])


class TestNamedPipes:
    """What a shell makes of `<(zcat ratings.csv.gz)`, read once as standard input is."""

    def test_a_pipe_is_read_as_a_file(self, tmp_path: Path) -> None:
        """Packed or not, and more than a pipe holds at a time; a second look finds the same."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        rows = "".join(f"u{n},i{n % 9},{n % 5 + 1},1600000000\n" for n in range(20_000))
        packed = gzip.compress((HEADER + rows).encode(), compresslevel=0)
        writer = threading.Thread(target=pipe.write_bytes, args=(packed,))
        writer.start()
        data = datasets.read(str(pipe))
        writer.join()
        assert len(data) == 20_000
        assert data_request.parse([str(pipe)]).label == "pipe pipe"
        assert data.fingerprint == f"sha256:{hashlib.sha256(packed).hexdigest()}" == datasets.fingerprint(str(pipe))

    def test_a_writer_that_takes_its_time_is_waited_for(self, tmp_path: Path) -> None:
        """It has the pipe open, as a query that is still running does."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        with pipe.open("wb") as end:
            os.close(reader)

            def write_late() -> None:
                end.write((HEADER + ROWS).encode())
                end.close()

            late = threading.Thread(target=write_late)
            threading.Timer(0.1, late.start).start()
            assert piped_input.copy_of_pipe(pipe, no_writer_s=0.0).read_text() == HEADER + ROWS
            late.join()

    def test_a_pipe_that_no_process_writes_to_is_refused(self, tmp_path: Path) -> None:
        """It would be waited for without end."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with pytest.raises(DataError, match=r"no process wrote to it within 0\.01 seconds"):
            piped_input.copy_of_pipe(pipe, no_writer_s=0.01)

    def test_a_pipe_can_be_read_once(self, tmp_path: Path) -> None:
        """What reads its data at every start cannot use one."""
        os.mkfifo(tmp_path / "pipe")
        assert data_request.parse([str(tmp_path / "pipe")]).is_read_once
        assert not data_request.parse([str(tmp_path)]).is_read_once
