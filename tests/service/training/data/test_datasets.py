import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest

from service.errors import DataError
from service.training.data import datasets
from service.training.data.formats.text_table import read_table
from tests.support.interactions import times, triples
from tests.support.models.source_rows import read_rows, row_triples

HEADER = "user_id,item_id,rating,timestamp\n"


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


class TestMovieLens:
    def test_100k(self, tmp_path: Path) -> None:
        """A directory with u.data is read, with titles and genres from u.item in Latin-1."""
        write(tmp_path / "u.data", "196\t242\t3\t881250949\n186\t302\t4\t891717742\n")
        flags = "|".join("1" if i in {5, 8} else "0" for i in range(19))
        write(tmp_path / "u.item", f"242|Caf\xe9 (1996)|24-Jan-1997||http://x|{flags}\n".encode("latin-1"))
        data = datasets.read(str(tmp_path))
        assert triples(data) == [("196", "242", 3.0), ("186", "302", 4.0)]
        assert times(data) == [881250949, 891717742]
        assert data.catalogue.titles == {"242": "Café (1996)"}
        assert data.catalogue.attributes == {"242": {"genres": ["Comedy", "Drama"], "year": 1996}}
        write(tmp_path / "u.user", "196|49|M|writer|55105-2\n186|39|F|executive|\nx|y\n")
        users = datasets.read(str(tmp_path))
        assert users.user_catalogue.attributes == {
            "196": {"age": 49, "gender": "M", "occupation": "writer", "zip_area": "551"},
            "186": {"age": 39, "gender": "F", "occupation": "executive"},
        }
        assert any("1 lines are no users" in note for note in users.report.notes)

    def test_1m(self, tmp_path: Path) -> None:
        """A directory with ratings.dat is read, and so is the file itself; ids may hold a single colon."""
        path = write(tmp_path / "ratings.dat", "1::a:b::5::978300760\n2::661::3::978302109\n")
        write(tmp_path / "movies.dat", 'a:b::Trois "couleurs" (1993)::Drama|War\n\nbroken\n'.encode("latin-1"))
        for source in (str(tmp_path), path):
            data = datasets.read(source)
            assert triples(data) == [("1", "a:b", 5.0), ("2", "661", 3.0)]
            assert data.catalogue.titles == {"a:b": 'Trois "couleurs" (1993)'}
            assert data.catalogue.attributes == {"a:b": {"genres": ["Drama", "War"], "year": 1993}}
            assert len(data.report.notes) == 1
            assert "1 lines" in data.report.notes[0]
        write(tmp_path / "users.dat", "1::F::1::10::48067\n2::M::56::99::V1X 2\n")
        assert datasets.read(path).user_catalogue.attributes == {
            "1": {"age": 1, "gender": "F", "occupation": "K-12 student", "zip_area": "480"},
            "2": {"age": 56, "gender": "M", "occupation": "99", "zip_area": "V1X"},
        }

    def test_latest(self, tmp_path: Path) -> None:
        """A directory with ratings.csv is read, with quoted titles from movies.csv."""
        write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\r\n1,1,4.5,964982703\r\n1,3,0.5,964981247\r\n")
        write(tmp_path / "movies.csv", 'movieId,title,genres\n1,"Heat, The (1995)",(no genres listed)\n')
        data = datasets.read(str(tmp_path))
        assert triples(data) == [("1", "1", 4.5), ("1", "3", 0.5)]
        assert (data.rating_min, data.rating_max) == (0.5, 4.5)
        assert data.catalogue.titles == {"1": "Heat, The (1995)"}
        assert data.catalogue.attributes == {"1": {"year": 1995}}
        write(tmp_path / "tags.csv", "userId,movieId,tag,timestamp\n1,1,Noir,1\n2,1,noir,2\n2,1,heist,3\n2,9,x,4\n\n")
        tagged = datasets.read(str(tmp_path)).catalogue
        assert tagged.attributes == {"1": {"year": 1995, "tags": ["noir", "heist"]}}
        records = tagged.records(["3", "1"])
        assert records is not None
        assert [records.record(row).title for row in range(2)] == [None, "Heat, The (1995)"]
        assert tagged.records(["3"]) is None

    def test_a_broken_catalogue_does_not_end_the_run(self, tmp_path: Path) -> None:
        """With any bytes in place of titles the ratings are read."""
        write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,1,4.5,964982703\n")
        write(tmp_path / "movies.csv", os.urandom(500))
        assert len(datasets.read(str(tmp_path))) == 1

    def test_a_directory_without_any_is_refused(self, tmp_path: Path) -> None:
        """The sentence names the expected files."""
        with pytest.raises(DataError, match=r"none of u\.data, ratings\.dat, ratings\.csv"):
            datasets.read(str(tmp_path))


class TestTables:
    @pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
    def test_columns_are_found_by_name(self, tmp_path: Path, separator: str) -> None:
        """Any order, any case, aliases, columns of no interest, a byte order mark and Windows line ends."""
        table = ["Score,note,productId,USER_ID,Date", "4,fine,p1,007,2021-01-02T03:04:05Z", "2.5,,p2,7,1609556645"]
        text = "\ufeff" + "\r\n".join(table).replace(",", separator)
        data = datasets.read(write(tmp_path / "table.txt", text))
        assert triples(data) == [("007", "p1", 4.0), ("7", "p2", 2.5)]
        assert times(data) == [1609556645, 1609556645]

    @pytest.mark.parametrize(
        ("text", "expected", "expected_times"),
        [
            ("u1,i1\nu2,i1\n", [("u1", "i1", 1.0), ("u2", "i1", 1.0)], None),
            ("u1,i1,3\nu2,i1,4", [("u1", "i1", 3.0), ("u2", "i1", 4.0)], None),
            ("u1,i1,1609556645\nu2,i1,1609556646\n", [("u1", "i1", 1.0), ("u2", "i1", 1.0)], [1609556645, 1609556646]),
            ("u1,i1,2021-01-02\nu2,i1,2021-01-03\n", [("u1", "i1", 1.0), ("u2", "i1", 1.0)], [1609545600, 1609632000]),
            ("u1,i1,3,1609556645\n", [("u1", "i1", 3.0)], [1609556645]),
            ("\n \nu1,i1,3,1609556645,and,more\n\n", [("u1", "i1", 3.0)], [1609556645]),
        ],
    )
    def test_without_a_header_columns_are_taken_by_position(
        self, tmp_path: Path, text: str, expected: list[tuple[str, str, float]], expected_times: list[int] | None
    ) -> None:
        """user,item[,rating][,timestamp]; without ratings every one is 1; blank lines are skipped."""
        data = datasets.read(write(tmp_path / "table.csv", text))
        assert triples(data) == expected
        assert (None if data.timestamps is None else times(data)) == expected_times
        assert data.report.n_bad_rows == 0
        assert data.report.n_rows == len(expected)

    def test_a_header_without_rows(self, tmp_path: Path) -> None:
        """A table without rows is refused."""
        with pytest.raises(DataError, match="holds no rows"):
            datasets.read(write(tmp_path / "table.csv", HEADER))

    def test_times_in_several_units(self, tmp_path: Path) -> None:
        """Seconds, milliseconds, microseconds, nanoseconds, fractions and ISO 8601 with an offset mean the same."""
        stamps = ["1609556645", "1609556645123", "1609556645123456", "1609556645123456789", "1609556645.9"]
        stamps += ["2021-01-02T03:04:05", "2021-01-02 04:04:05+01:00", " 1609556645 "]
        text = HEADER + "".join(f"u{i},i,1,{stamp}\n" for i, stamp in enumerate(stamps))
        assert times(datasets.read(write(tmp_path / "t.csv", text))) == [1609556645] * len(stamps)
        # The first four alone take the vectorised path.
        text = HEADER + "".join(f"u{i},i,1,{stamp}\n" for i, stamp in enumerate(stamps[:4]))
        assert times(datasets.read(write(tmp_path / "t.csv", text))) == [1609556645] * 4

    def test_quotes(self, tmp_path: Path) -> None:
        """A quoted field may hold separators and doubled quotes; a quote within an unquoted field is itself."""
        text = HEADER + '"a,b","say ""hi""",3,1\nplain,5" disc,4,1\n"x","y","2","1"\n'
        data = datasets.read(write(tmp_path / "t.csv", text))
        assert triples(data) == [("a,b", 'say "hi"', 3.0), ("plain", '5" disc', 4.0), ("x", "y", 2.0)]

    def test_ids_keep_their_spelling_without_blanks_around(self, tmp_path: Path) -> None:
        """Leading zeros, signs, points and other scripts stay; the same id with blanks around is the same."""
        data = datasets.read(write(tmp_path / "t.csv", "007,1.0,3\n 007 ,+1,3\nžluť, 日本 ,2\n7,1e3,1\n"))
        assert data.users.id_of == ["007", "žluť", "7"]
        assert data.items.id_of == ["1.0", "+1", "日本", "1e3"]

    def test_ids_of_bad_rows_only_are_left_out(self, tmp_path: Path) -> None:
        """Every row of the vocabularies has a rating."""
        data = datasets.read(write(tmp_path / "t.csv", HEADER + "ghost,a,oops,1\nu,b,1,1\nv,c,2,1\n"))
        assert data.users.id_of == ["u", "v"]
        assert data.items.id_of == ["b", "c"]
        assert data.item_rows.tolist() == [0, 1]

    def test_the_latest_of_duplicates_stays(self, tmp_path: Path) -> None:
        """By time; of equal times, and without times, by line."""
        timed = HEADER + "u,i,1,300\nu,i,2,100\nv,i,3,5\nu,i,4,300\nv,i,5,4\n"
        data = datasets.read(write(tmp_path / "t.csv", timed))
        assert triples(data) == [("v", "i", 3.0), ("u", "i", 4.0)]
        assert data.report.n_duplicates == 3
        assert data.rating_min == 3.0
        untimed = datasets.read(write(tmp_path / "n.csv", "u,i,1\nv,i,2\nu,i,3\n"))
        assert triples(untimed) == [("v", "i", 2.0), ("u", "i", 3.0)]

    def test_the_size_of_blocks_changes_nothing(self, tmp_path: Path) -> None:
        """A file read in tiny blocks gives the same rows, and bad rows have the same numbers."""
        lines = [f"u{i % 7},i{i},{i % 5},{1000 + i}" if i % 10 else f"u{i},x" for i in range(1, 300)]
        path = write(tmp_path / "t.csv", HEADER + "\n".join(lines))
        whole, pieces = read_rows(read_table, path), read_rows(read_table, path, block_bytes=64, head_bytes=100)
        assert row_triples(pieces) == row_triples(whole)
        assert pieces.bad_examples == whole.bad_examples
        assert (pieces.n_rows, pieces.n_bad_rows) == (whole.n_rows, 29)
        assert pieces.bad_examples[9] == "t.csv:101: 2 fields instead of 4"


class TestBeforeTheHeader:
    @pytest.mark.parametrize("remark", ["# made by hand", "% 3 columns, sorted", "#\n\n# twice"])
    def test_comments_are_no_rows(self, tmp_path: Path, remark: str) -> None:
        """The header below them gives the columns, and lines keep their numbers."""
        data = datasets.read(write(tmp_path / "t.csv", f"{remark}\nitem,user,rating\ni,u,3\ni,v,x\n"))
        assert triples(data) == [("u", "i", 3.0)]
        assert data.report.n_rows == 2
        assert data.report.bad_examples[0].startswith(f"t.csv:{remark.count(chr(10)) + 4}: the rating")
        headerless = datasets.read(write(tmp_path / "n.csv", f"{remark}\nu,i,3,7\nv,i,4,8\n"))
        assert triples(headerless) == [("u", "i", 3.0), ("v", "i", 4.0)]

    def test_a_header_after_a_comment_sign(self, tmp_path: Path) -> None:
        """As numpy.savetxt writes it; an id may begin with such a sign."""
        data = datasets.read(write(tmp_path / "t.csv", "# item,user,rating\n#1,%u,3\n#2,%v,4\n"))
        assert triples(data) == [("%u", "#1", 3.0), ("%v", "#2", 4.0)]
        assert len(datasets.read(write(tmp_path / "n.csv", "#1,a,3\n#2,b,4\n"))) == 2

    def test_anything_else_is_a_bad_row(self, tmp_path: Path) -> None:
        """The header below it is found."""
        data = datasets.read(write(tmp_path / "t.csv", "exported today\n\nitem,user,rating\ni,u,3\ni,v,4\n"))
        assert triples(data) == [("u", "i", 3.0), ("v", "i", 4.0)]
        assert (data.report.n_rows, data.report.n_bad_rows) == (3, 1)
        assert data.report.bad_examples[0].startswith("t.csv:1: neither the header")

    def test_a_separator_at_the_end_of_every_row(self, tmp_path: Path) -> None:
        """It makes no bad rows, whether the header has it too or not."""
        for header in ("user,item,rating", "user,item,rating,"):
            data = datasets.read(write(tmp_path / "t.csv", f"{header}\na,b,3,\nc,d,4,\n"))
            assert triples(data) == [("a", "b", 3.0), ("c", "d", 4.0)]
        with pytest.raises(DataError, match="the header has 3 fields and most rows have 4"):
            datasets.read(write(tmp_path / "t.csv", "user,item,rating\na,b,3,x\nc,d,4,y\n"))

    @pytest.mark.parametrize("header", [True, False])
    def test_a_first_line_of_any_length(self, tmp_path: Path, header: bool) -> None:
        """A header of thousands of columns is read whole; a broken line of megabytes is one bad row."""
        if header:
            text = f"user,item,rating,{','.join(f'c{i}' for i in range(20_000))}\n" + f"a,b,3{',1' * 20_000}\n"
        else:
            text = f"{'u' * 3_000_000},i,3\n" + "a,b,3\n"
        data = datasets.read(write(tmp_path / "t.csv", text))
        assert triples(data) == [("a", "b", 3.0)]
        assert data.report.n_bad_rows == (not header)


class TestNames:
    @pytest.mark.parametrize("name", [b"lat\xe9.csv", b"a\nb.csv", b"\x1b[2J.csv"])
    def test_a_file_of_any_name(self, tmp_path: Path, name: bytes) -> None:
        """The report has it in a printable form."""
        path = tmp_path / os.fsdecode(name)
        data = datasets.read(write(path, HEADER + "a,b,3,1\nc,d,x,1\n"))
        for text in (data.report.source, *data.report.files, *data.report.bad_examples):
            assert text.isprintable()
            assert text.encode()

    def test_one_of_several_files_in_a_directory(self, tmp_path: Path) -> None:
        """The report names the one that was read."""
        write(tmp_path / "ratings.csv", HEADER + "a,b,3,1\n")
        write(tmp_path / "u.data", "1\t2\t3\t4\n")
        data = datasets.read(str(tmp_path))
        assert triples(data) == [("1", "2", 3.0)]
        assert data.report.notes == (f"{tmp_path} holds ratings.csv too; only u.data was read.",)
        assert datasets.read(str(tmp_path / "u.data")).report.notes == ()


class TestBadRows:
    def test_each_is_located_with_its_reason(self, tmp_path: Path) -> None:
        """The report has the line and the reason of every kind of error."""
        bad = {
            3: (b"only,two", "2 fields instead of 4"),
            5: (b"a,b,3,1,extra", "5 fields instead of 4"),
            6: (b",b,3,1", "the user id is empty"),
            7: (b"a,  ,3,1", "the item id is empty"),
            9: (b"a,b,nan,1", "the rating 'nan' is not a finite number"),
            10: (b"a,b,1e39,1", "the rating '1e39' is not a finite number"),
            11: (b"a,b,3,yesterday", "the timestamp 'yesterday' is neither unix time nor ISO 8601"),
            12: (b"a,\xff\xfe,3,1", "bytes that are not UTF-8"),
            14: (b'a,"never closed,3,1', "a quoted field that does not end where it should"),
            15: (b"a\x07b,b,3,1", "the user id 'a\\x07b' is not of 1 to 128 characters without control characters"),
        }
        late = {20: (b"a," + b"x" * 129 + b",3,1", "not among the first ten"), 21: (b"a,b,,1", "nor this")}
        lines = [b"u%d,i,3,1" % number for number in range(2, 31)]
        for number, (line, _) in (bad | late).items():
            lines[number - 2] = line
        lines[8 - 2] = lines[13 - 2] = b""
        lines[16 - 2] = b"   "
        path = write(tmp_path / "t.csv", HEADER.encode() + b"\r\n".join(lines))
        report = datasets.read(path).report
        assert report.bad_examples == tuple(f"t.csv:{number}: {reason}" for number, (_, reason) in bad.items())
        assert report.n_bad_rows == len(bad) + len(late)
        assert report.n_rows == len(lines) - 3

    def test_a_carriage_return_within_a_line(self, tmp_path: Path) -> None:
        """It makes one bad row, not two."""
        report = datasets.read(write(tmp_path / "t.csv", "a,b,1\nc\rd,e,2\nf,g,3\nh,i,x\n")).report
        assert report.bad_examples == (
            "t.csv:2: a carriage return within the line",
            "t.csv:4: the rating 'x' is not a finite number",
        )

    def test_an_unclosed_quote_affects_its_own_line_only(self, tmp_path: Path) -> None:
        """Two stray quotes, lines apart, do not join the lines between them."""
        data = datasets.read(write(tmp_path / "t.csv", 'a,"b,1\nc,d,2\ne,f,3\ng,"h,4\ni,j,5\n'))
        assert triples(data) == [("c", "d", 2.0), ("e", "f", 3.0), ("i", "j", 5.0)]
        assert data.report.n_bad_rows == 2

    def test_a_broken_first_line_does_not_change_the_layout(self, tmp_path: Path) -> None:
        """The majority of the first lines decides."""
        data = datasets.read(write(tmp_path / "t.csv", "br0ken;line\n1,2,3,4\n1,3,3,4\n"))
        assert len(data) == 2
        assert data.report.bad_examples == ("t.csv:1: 1 field instead of 4",)

    def test_more_than_half_bad_is_refused(self, tmp_path: Path) -> None:
        """More than half of the rows being bad, the file is probably something else."""
        assert len(datasets.read(write(tmp_path / "t.csv", HEADER + "a,b,1,1\na,b,x,1\n"))) == 1
        with pytest.raises(DataError, match=r"2 of 3 rows are bad.*t\.csv:3: the rating 'x' is not a finite number"):
            datasets.read(write(tmp_path / "t.csv", HEADER + "a,b,1,1\na,b,x,1\na,b,y,1\n"))


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (b"", "is empty"),
            (b"\n\n  \n", "holds no rows"),
            (b"one\ntwo\nthree\n", "is not a table"),
            (b"name,price\nfoo,bar\n", None),
            (b"user,price,rating\n1,2,3\n", "names no item column"),
            (b"who,what,stars\nann,tea,5\n", "names no user and no item column"),
            (b"alpha,beta,gamma\n1,2,3\n", "names no user and no item column"),
            (b'[{"user": 1, "item": 2}]\n', "a JSON array, which is not supported: write one object a line"),
            (b"PAR1\x15\x04", "is no whole Parquet file"),
            (b"\x1f\x8b\x08\x00", "is broken: gzip cannot decompress it"),
            (b"PK\x03\x04" + bytes(30), "is a zip archive, broken or"),
            ("user,item\n1,2\n".encode("utf-16-le"), "name its encoding, such as --encoding utf-16"),
            (b"user,item\r1,2\r3,4\r", "ends its lines with carriage returns alone"),
            (b"<!DOCTYPE html>\n<p>Sorry, not found</p>\n", "a web page, which is not supported"),
            (b"\x1b[31m,item\n1,2\n3,4\n", "names no user column, only \\x1b[31m, item"),
            (np.random.default_rng(1).bytes(4096), ""),
        ],
    )
    def test_other_files_are_refused_with_a_sentence(
        self, tmp_path: Path, content: bytes, sentence: str | None
    ) -> None:
        """The sentence names the file and the problem; two columns of any names are users and items."""
        path = write(tmp_path / "table.csv", content)
        if sentence is None:
            assert len(datasets.read(path)) == 2
            return
        with pytest.raises(DataError, match=r"table\.csv") as refusal:
            datasets.read(path)
        assert sentence in str(refusal.value)
        assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize("name", ["a.xlsx", "a.XLS", "a.ods"])
    def test_spreadsheets(self, tmp_path: Path, name: str) -> None:
        """They are refused by their names before anything is read."""
        path = write(tmp_path / name, "user,item\n1,2\n")
        with pytest.raises(DataError, match="is a spreadsheet, which is not supported: save it as CSV"):
            datasets.read(path)

    @pytest.mark.parametrize(
        "path", ["/nowhere/at/all", "x" * 5000, "a\0b", "", " ", "demo:", "demo:1x2", "demo:0x1x1"]
    )
    def test_a_missing_file(self, path: str) -> None:
        """Reading and fingerprinting refuse alike."""
        with pytest.raises(DataError):
            datasets.read(path)
        with pytest.raises(DataError):
            datasets.fingerprint(path)

    def test_a_device_is_refused(self) -> None:
        """A pipe is read; see the tests of piped input."""
        with pytest.raises(DataError, match="neither a file, a directory nor a pipe"):
            datasets.read("/dev/null")


def test_the_fingerprint_is_the_sha256_of_the_ratings(tmp_path: Path) -> None:
    """Reading and fingerprinting agree, for the directory and for the file in it, whatever else lies there."""
    content = b"1::2::3::4\n"
    write(tmp_path / "ratings.dat", content)
    write(tmp_path / "movies.dat", b"2::T::G\n")
    expected = f"sha256:{hashlib.sha256(content).hexdigest()}"
    for source in (str(tmp_path), str(tmp_path / "ratings.dat")):
        assert datasets.fingerprint(source) == datasets.read(source).fingerprint == expected


def test_a_million_rows_load_in_a_second_and_a_half(tmp_path: Path) -> None:
    """A file of MovieLens 1M's size and form loads within the promised time."""
    rng = np.random.default_rng(0)
    pairs = rng.permutation(6000 * 3700)[:1_000_000]
    ratings, stamps = rng.integers(1, 6, pairs.size), rng.integers(956_703_932, 1_046_454_590, pairs.size)
    columns = (pairs // 3700, pairs % 3700, ratings, stamps)
    path = write(tmp_path / "ratings.dat", "\n".join("::".join(map(str, row)) for row in zip(*columns, strict=True)))
    datasets.read(write(tmp_path / "small.csv", "1,2,3\n"))
    # Processor time, because other load on the machine does not count.
    # The limit is the promise itself.
    started_s = time.process_time()
    data = datasets.read(path)
    assert time.process_time() - started_s < 1.5
    assert len(data) == 1_000_000
