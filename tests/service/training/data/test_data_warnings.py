"""Warnings about data that is probably misread, and files of other formats."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import DataError
from service.training.data import datasets
from service.training.data.data_request import parse
from service.training.data.field_values import parse_time

# Composed, and decomposed.
RENE = ("Ren\u00e9", "Rene\u0301")
HEADER = "user_id,item_id,rating,timestamp\n"


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def table(row: Callable[[int], str], n_rows: int = 40, header: str = HEADER) -> str:
    return header + "".join(row(n) + "\n" for n in range(n_rows))


def notes(path: str) -> str:
    return "\n".join(datasets.read(path).report.notes)


class TestWarnings:
    """Each is one sentence, and the rows are read."""

    @pytest.mark.parametrize(
        ("row", "sentence"),
        [
            (lambda n: f"u{n % 5},i{n % 7},{(n % 2) * 4},{n + 10**9}", "20 of 40 ratings are 0 and none lies between"),
            (lambda n: f"{'NaN' if n % 4 else n},i{n},3,{n + 10**9}", "30 of the rows have the user id 'NaN'"),
            (lambda n: f"u{n % 5},{'NULL' if n % 4 else n},3,{n + 10**9}", "30 of the rows have the item id 'NULL'"),
            (lambda n: f"{n % 5}{'.0' * (n % 2)},i{n},3,{n + 10**9}", "5 user ids are written in two ways, such as"),
            (lambda n: f"u{n % 5},{n % 3}.23457E+12,3,{n + 10**9}", "3 item ids look like 0.23457E+12"),
            (lambda n: f"{RENE[n % 2]},i{n},3,{n + 10**9}", "occurs in two forms of Unicode"),
            (lambda n: f"{n},i{n % 7},{n % 5},{n + 10**9}", "Every row has its own user"),
            (lambda n: f"u{n % 7},{n},{n % 5},{n + 10**9}", "Every row has its own item"),
            (lambda n: f"'u{n % 5}',i{n % 7},{n % 5},{n + 10**9}", "5 user ids stand in quotes, such as 'u0'"),
            (lambda n: f'"u{n % 5}", "i{n % 7}",{n % 5},{n + 10**9}', '7 item ids stand in quotes, such as "i0"'),
            (lambda n: f"shop,i{n},{n % 5},{n + 10**9}", "All rows are of one user"),
            (lambda n: f"u{n},shop,{n % 5},{n + 10**9}", "All rows are of one item"),
        ],
    )
    def test_each_warning(self, tmp_path: Path, row: Callable[[int], str], sentence: str) -> None:
        """Missing values, numbers as spreadsheets and data frames write them, row numbers, zeros for nothing."""
        assert sentence in notes(write(tmp_path / "t.csv", table(row)))

    @pytest.mark.parametrize(
        "row",
        [
            lambda n: f"u{n % 5},i{n % 7},{n % 6},{n + 10**9}",
            lambda n: f"u{n % 5},i{n % 7},{(n % 3) / 2},{n + 10**9}",
            lambda n: f"{n % 5}.0,{n % 7}.0,{n % 4 + 1},{n + 10**9}",
            lambda n: f"Ren\u00e9{n % 3},None such {n % 7},{n % 4 + 1},{n + 10**9}",
        ],
    )
    def test_good_data_has_no_warning(self, tmp_path: Path, row: Callable[[int], str]) -> None:
        """A scale from 0, ids that all end in .0, and names are fine."""
        assert notes(write(tmp_path / "t.csv", table(row))) == ""

    def test_ids_written_differently_in_two_sources(self, tmp_path: Path) -> None:
        """Each source alone has no warning."""
        first = write(tmp_path / "a.csv", table(lambda n: f"{n % 5},{n % 7},{n % 4},{n + 10**9}"))
        second = write(tmp_path / "b.csv", table(lambda n: f"{n % 5}.0,{n % 7},{n % 4},{n + 10**9}"))
        report = datasets.read(parse([first, second])).report
        assert any("5 user ids are written in two ways" in note for note in report.notes)

    def test_some_lines_in_another_encoding(self, tmp_path: Path) -> None:
        """Those few are left out, so the note names the option."""
        text = table(lambda n: f"{RENE[0] if n == 3 else 'u'}{n % 5},i{n % 7},{n % 4},{n + 10**9}")
        assert "--encoding latin-1" in notes(write(tmp_path / "t.csv", text.encode("latin-1")))


class TestConcatenated:
    """What `cat a.csv b.csv` makes."""

    @pytest.mark.parametrize("header", ["user_id,item_id\n", HEADER])
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    def test_a_header_in_the_middle_is_no_row(self, tmp_path: Path, header: str, mark: str) -> None:
        """It is a bad row, also without a rating or time column."""
        ends = ",3,1600000000" if "rating" in header else ""
        text = f"{mark}{header}1,2{ends}\n{mark}{header}3,4{ends}\n"
        data = datasets.read(write(tmp_path / "t.csv", text))
        assert list(data.users.id_of) == ["1", "3"]
        assert data.report.bad_examples == ("t.csv:3: the header once more",)

    def test_a_byte_order_mark_before_a_later_row(self, tmp_path: Path) -> None:
        """It is not part of the user id."""
        data = datasets.read(write(tmp_path / "t.csv", "\ufeffann,b,3\n\ufeffann,c,4\n"))
        assert list(data.users.id_of) == ["ann"]


class TestHeaders:
    def test_separators_behind_every_row_alone(self, tmp_path: Path) -> None:
        """Spreadsheets write them for emptied columns."""
        path = write(tmp_path / "t.csv", table(lambda n: f"u{n % 5},i{n % 7},{n % 4},{n + 10**9},,,"))
        assert datasets.read(path).report.n_bad_rows == 0

    def test_fields_that_span_lines(self, tmp_path: Path) -> None:
        """Their lines do not decide the number of fields, even if they are most of the file."""
        for review in ('"nice\nreally\ngood"', '"so, so, so, good\nand, so, so, so, so, on"', '"x ""y""\n"'):
            rows = "".join(f"u{n},i{n},{review},{n + 1}\n" for n in range(2))
            data = datasets.read(write(tmp_path / "t.csv", f"user,item,review,rating\n{rows}"))
            assert (data.ratings.tolist(), data.report.n_bad_rows) == ([1.0, 2.0], 0)

    def test_a_stray_quote_with_columns_by_number(self, tmp_path: Path) -> None:
        """The header gives the number of columns, and a larger number is refused."""
        rows = "".join(f"{n},u{n},i{n}{chr(34) * (n == 3)},{n + 1}\n" for n in range(9))
        path = write(tmp_path / "t.csv", f"user,item,rating\n{rows}")
        with pytest.raises(DataError, match="has columns 1 to 3, and --columns asks for rating=4"):
            datasets.read(parse([path], columns="user=2,item=3,rating=4"))

    def test_row_names_without_a_name(self, tmp_path: Path) -> None:
        """R's write.table does not name the column of row names; by number the others are read."""
        path = write(
            tmp_path / "t.csv", table(lambda n: f'"{n}",u{n % 5},i{n % 7},{n % 4}', header="user,item,rating\n")
        )
        with pytest.raises(DataError, match=r"the header has 3 fields and most rows have 4: .*--columns user=2,item=3"):
            datasets.read(path)
        data = datasets.read(parse([path], columns="user=2,item=3,rating=4"))
        assert sorted(data.users.id_of) == [f"u{n}" for n in range(5)]

    def test_names_that_differ_by_signs(self, tmp_path: Path) -> None:
        """They are ambiguous unless asked for by name."""
        text = table(lambda n: f"u{n % 5},v{n % 3},i{n % 7}", header="User_ID,user_id,item_id\n")
        path = write(tmp_path / "t.csv", text)
        with pytest.raises(DataError, match="several columns called 'User_ID'"):
            datasets.read(path)
        data = datasets.read(parse([path], columns="user=user_id"))
        assert sorted(data.users.id_of) == ["v0", "v1", "v2"]

    def test_a_header_of_unknown_names_is_no_row(self, tmp_path: Path) -> None:
        """The sentence lists the names, for --columns to choose from."""
        path = write(tmp_path / "t.csv", table(lambda n: f"#{n},a@b.c,paid,{n}", header="Name,Email,Status,Quantity\n"))
        with pytest.raises(DataError, match="names no user and no item column, only Name, Email, Status, Quantity"):
            datasets.read(path)

    def test_recbole_s_atomic_files(self, tmp_path: Path) -> None:
        """Types follow the names."""
        header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        path = write(tmp_path / "x.inter", table(lambda n: f"u{n % 5}\ti{n % 7}\t{n % 4}\t{n + 10**9}", header=header))
        data = datasets.read(path)
        assert data.timestamps is not None
        assert data.rating_max == 3

    def test_columns_without_a_name_are_called_by_number(self, tmp_path: Path) -> None:
        """Data frames write their index without a name."""
        path = write(
            tmp_path / "t.csv", table(lambda n: f"{n},u{n % 5},i{n % 7},{n % 4}", header=",user,item,rating\n")
        )
        assert datasets.read(path).report.columns[0].endswith("ignored: column 1.")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2021-01-02 03:04:05 UTC", 1609556645),
        ("2021-01-02 03:04:05.678901 UTC", 1609556645),
        ("2021-01-02T03:04:05 GMT", 1609556645),
        ("2021-01-02 03:04:05 +0000 UTC", 1609556645),
        ("2021-01-02 04:04:05 +0100", 1609556645),
        ("2021-01-02 04:04:05 +01:00", 1609556645),
        ("2021/01/02 03:04:05", 1609556645),
        ("2021/1/2", 1609545600),
        ("2021.01.02T03:04:05Z", 1609556645),
        ("2021/01.02", None),
        ("2021-01-02 04:04:05 +0100 UTC", None),
        ("2021-01-02 03:04:05 CET", None),
        ("2021-01-02 03:04:05 Europe/Berlin", None),
        ("UTC", None),
    ],
)
def test_times_with_their_offset_apart(text: str, seconds: int | None) -> None:
    """As BigQuery and Go write them; a named zone is ambiguous and refused."""
    assert parse_time(text) == seconds


class TestAdvice:
    @pytest.mark.parametrize(
        ("row", "sentence"),
        [
            (
                lambda n: f"u{n % 5},i{n % 7},,{n + 10**9}",
                "the rating is empty; --columns rating= reads the rows without",
            ),
            (
                lambda n: f"u{n % 5},i{n % 7},{n}%,{n + 10**9}",
                "number; --columns rating= reads the rows without ratings",
            ),
            (lambda n: f"u{n % 5},i{n % 7},3,Jan 2 2021", "such as 1609556645 or .* --columns time= reads"),
        ],
    )
    def test_a_column_that_cannot_be_read_can_be_left_out(
        self, tmp_path: Path, row: Callable[[int], str], sentence: str
    ) -> None:
        """The refusal names the option."""
        with pytest.raises(DataError, match=sentence):
            datasets.read(write(tmp_path / "t.csv", table(row)))

    def test_a_file_in_another_encoding(self, tmp_path: Path) -> None:
        """The refusal names the option."""
        text = table(lambda n: f"Jos\u00e9{n % 5},i{n % 7},3,{n + 10**9}")
        with pytest.raises(DataError, match="--encoding latin-1"):
            datasets.read(write(tmp_path / "t.csv", text.encode("latin-1")))

    def test_a_parquet_column_of_another_type(self, tmp_path: Path) -> None:
        """An optional column can be left out."""
        path = str(tmp_path / "t.parquet")
        pq.write_table(pa.table({"user": ["a"], "item": ["b"], "rating": pa.nulls(1)}), path)
        with pytest.raises(DataError, match="--columns rating= leaves it out"):
            datasets.read(path)
        assert len(datasets.read(parse([path], columns="rating="))) == 1

    def test_parquet_texts_that_are_not_utf8(self, tmp_path: Path) -> None:
        """Such rows are bad, in any column, and the others are read."""
        texts = pa.array([b"1", b"2", b"\xe93", b"4", b"5"], pa.binary()).view(pa.string())
        path = str(tmp_path / "t.parquet")
        for column in ("user", "item", "rating", "time"):
            columns = {name: texts if name == column else ["1", "2", "3", "4", "5"] for name in ("user", "item")}
            columns |= {name: texts if name == column else [1, 2, 3, 4, 5] for name in ("rating", "time")}
            pq.write_table(pa.table(columns), path)
            report = datasets.read(path).report
            assert (report.n_bad_rows, report.bad_examples[0][:11]) == (1, "t.parquet:3")

    def test_a_parquet_file_with_a_damaged_name(self, tmp_path: Path) -> None:
        """It is refused with a sentence."""
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table({"user": ["a"], "item": ["b"], "ratingx": [1]}), str(path), store_schema=False)
        path.write_bytes(path.read_bytes().replace(b"ratingx", b"rating\xe9"))
        with pytest.raises(DataError, match="is no whole Parquet file"):
            datasets.read(str(path))

    def test_directories_within(self, tmp_path: Path) -> None:
        """Directories of years and months are not read, and the refusal says why."""
        (tmp_path / "2021").mkdir()
        with pytest.raises(DataError, match="directories within it count only if they are called NAME=VALUE"):
            datasets.read(str(tmp_path))


def test_a_table_that_begins_with_a_guid_in_braces(tmp_path: Path) -> None:
    """It is no JSON object."""
    guid = "{6F9619FF-8B86-D011-B42D-00CF4FC964FF}"
    data = datasets.read(write(tmp_path / "t.csv", f"{guid},a,3\n{guid},b,4\n"))
    assert list(data.users.id_of) == [guid]


def test_fields_between_blanks(tmp_path: Path) -> None:
    """The refusal has the command that makes a table of them."""
    path = write(tmp_path / "t.txt", "1   2 3\n4 5   6\n")
    with pytest.raises(DataError, match=r"tr -s ' ' '\\t' makes them tabs"):
        datasets.read(path)


def tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("r.csv")
        member.size = len(HEADER)
        archive.addfile(member, io.BytesIO(HEADER.encode()))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"SQLite format 3\0" + b"\0" * 100, "an SQLite database"),
        (b"\x93NUMPY\1\0" + b"\0" * 100, "a NumPy array"),
        (b"\x80\4\x95" + b"\0" * 100, "a Python pickle"),
        (b"ARROW1\0\0" + b"\0" * 100, "an Arrow or Feather file"),
        (b"ORC" + b"\0" * 100, "an ORC file"),
        (b"Obj\1" + b"\0" * 100, "an Avro file"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "an HDF5 file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 100, "a spreadsheet or another office document"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "a pointer of Git LFS"),
        (b"COPY public.r (item_id, user_id) FROM stdin;\n1\t2\n3\t4\n\\.\n", "a file of SQL statements"),
        (b"INSERT INTO `r` VALUES (1,2,3);\n", "a file of SQL statements"),
        (b'[\n  {"user": 1, "item": 2},\n  {"user": 1, "item": 3}\n]\n', "a JSON array"),
        (tar(), "a tar archive"),
        (gzip.compress(gzip.compress(HEADER.encode() * 200, mtime=0), mtime=0), "packed with gzip a second time"),
    ],
)
def test_a_foreign_format_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    """With advice for that format."""
    path = write(tmp_path / "data.csv", content)
    with pytest.raises(DataError, match=f"is {sentence}.*: ") as refusal:
        datasets.read(path)
    assert "--encoding" not in str(refusal.value)


def test_a_text_that_begins_like_another_format(tmp_path: Path) -> None:
    """It is read as a text."""
    assert len(datasets.read(write(tmp_path / "t.csv", "orc-1,b,3\norc-2,c,4\n"))) == 2
