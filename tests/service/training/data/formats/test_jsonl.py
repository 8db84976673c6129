import hashlib
import json
from pathlib import Path

import pytest

from service.errors import DataError
from service.training.data import datasets
from service.training.data.formats.jsonl import read_jsonl
from tests.support.interactions import times, triples
from tests.support.models.source_rows import read_rows, row_triples


def write(path: Path, *lines: object) -> str:
    """Write lines: objects as JSON, texts and bytes as they are."""
    encoded = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return str(path)


GOOD = {"user_id": "u", "item_id": "i", "rating": 3, "timestamp": 7}


class TestFields:
    def test_names_are_those_of_a_header(self, tmp_path: Path) -> None:
        """Any case and order, aliases, and fields of no interest, nested ones among them."""
        path = write(
            tmp_path / "t.jsonl",
            {"Stars": 4.5, "reviewerID": "A1", "asin": "B1", "about": {"user": 1}, "unixReviewTime": 1609556645},
            {"asin": "B2", "unixReviewTime": "2021-01-02T03:04:05Z", "reviewerID": "A1", "Stars": "2"},
        )
        data = datasets.read(path)
        assert triples(data) == [("A1", "B1", 4.5), ("A1", "B2", 2.0)]
        assert times(data) == [1609556645, 1609556645]

    def test_a_number_and_its_text_are_one_id(self, tmp_path: Path) -> None:
        """42, 42.0 and "42"; a text stays as it is written, so that "042" and "42.0" are others."""
        users = [42, "42", 42.0, " 42 ", "042", "42.0", -1, 2**63]
        path = write(tmp_path / "t.jsonl", *({"user": user, "item": n} for n, user in enumerate(users)))
        data = datasets.read(path)
        assert data.users.id_of == ["42", "042", "42.0", "-1", "9223372036854775808"]
        assert data.user_rows.tolist() == [0, 0, 0, 0, 1, 2, 3, 4]
        assert data.ratings.tolist() == [1.0] * 8
        assert data.timestamps is None

    def test_times_in_several_forms(self, tmp_path: Path) -> None:
        """Seconds to nanoseconds, fractions, numeric strings and ISO 8601."""
        stamps = [1609556645, 1609556645123, 1609556645.9, "1609556645", "2021-01-02 04:04:05+01:00", 1.609556645e18]
        path = write(tmp_path / "t.jsonl", *(GOOD | {"item_id": n, "timestamp": s} for n, s in enumerate(stamps)))
        assert times(datasets.read(path)) == [1609556645] * len(stamps)

    @pytest.mark.parametrize(
        ("name", "before"), [("t.ndjson", b""), ("t.json", b""), ("t.txt", b""), ("t.csv", b"\xef\xbb\xbf\r\n ")]
    )
    def test_the_format_is_detected_by_the_first_byte(self, tmp_path: Path, name: str, before: bytes) -> None:
        """With any name, after a byte order mark and blank lines; lines may end as on Windows."""
        path = tmp_path / name
        path.write_bytes(before + json.dumps(GOOD).encode() + b"\r\n\r\n")
        assert triples(datasets.read(str(path))) == [("u", "i", 3.0)]
        assert datasets.read(str(path)).report.n_rows == 1

    def test_the_fingerprint_is_that_of_the_bytes(self, tmp_path: Path) -> None:
        """With and without options."""
        path = write(tmp_path / "t.jsonl", GOOD)
        expected = f"sha256:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
        assert datasets.fingerprint(path) == datasets.read(path).fingerprint == expected


class TestBadRows:
    def test_each_is_located_with_its_reason(self, tmp_path: Path) -> None:
        """The report has the line and the reason of every kind of error."""
        bad: dict[int, tuple[object, str]] = {
            2: ('{"user_id": "u", ', "not JSON, unexpected end of data at character 18"),
            3: ("[1, 2]", "not a JSON object"),
            4: (GOOD | {"user_id": None}, "the user id is empty"),
            5: ({"user_id": "u", "rating": 3, "timestamp": 7}, "the item id is empty"),
            7: (GOOD | {"item_id": True}, "the item id 'true' is neither a text nor a whole number"),
            8: (GOOD | {"user_id": 4.5}, "the user id '4.5' is neither a text nor a whole number"),
            9: (
                GOOD | {"rating": False},
                (
                    "the rating 'false' is not a finite number; write 1 and 0, or leave the column out with "
                    "--columns rating="
                ),
            ),
            10: (GOOD | {"rating": {"stars": 5}}, "the rating '{\"stars\":5}' is not a finite number"),
            11: (GOOD | {"rating": 1e39}, "the rating '1e+39' is not a finite number"),
            12: (GOOD | {"timestamp": "yesterday"}, "the timestamp 'yesterday' is neither unix time nor ISO 8601"),
        }
        late = {20: (GOOD | {"rating": None}, ""), 21: (b'{"user_id": "\xff"}', ""), 22: ('{"rating": NaN}', "")}
        lines: list[object] = [GOOD | {"item_id": n} for n in range(1, 41)]
        for number, (line, _) in (bad | late).items():
            lines[number - 1] = line
        lines[6 - 1] = "   "
        report = datasets.read(write(tmp_path / "t.jsonl", *lines)).report
        assert report.bad_examples == tuple(f"t.jsonl:{number}: {reason}" for number, (_, reason) in bad.items())
        assert report.n_bad_rows == len(bad) + len(late)
        assert report.n_rows == 39

    def test_a_rating_that_the_first_lines_lack(self, tmp_path: Path) -> None:
        """It is not ignored: the line is a bad row, and too many of them end the run."""
        plain = [{"user": "u", "item": n} for n in range(300)]
        path = write(tmp_path / "t.jsonl", *plain, {"user": "v", "item": 1, "stars": 4}, {"user": "v", "item": 2})
        data = datasets.read(path)
        assert len(data) == 301
        assert data.report.bad_examples == ("t.jsonl:301: a rating, 'stars', where the first lines have none",)
        rated = ({"user": "v", "item": n, "stars": 4} for n in range(400))
        with pytest.raises(DataError, match="400 of 700 rows are bad"):
            datasets.read(write(tmp_path / "t.jsonl", *plain, *rated))

    def test_the_size_of_blocks_changes_nothing(self, tmp_path: Path) -> None:
        """A file read in tiny blocks gives the same rows, and bad rows have the same numbers."""
        lines: list[object] = [GOOD | {"user_id": n % 7, "item_id": n} if n % 10 else "{" for n in range(1, 300)]
        path = write(tmp_path / "t.jsonl", *lines)
        whole, pieces = read_rows(read_jsonl, path), read_rows(read_jsonl, path, block_bytes=100)
        assert row_triples(pieces) == row_triples(whole)
        assert (pieces.n_rows, pieces.bad_examples) == (whole.n_rows, whole.bad_examples)
        assert pieces.bad_examples[9].startswith("t.jsonl:100: not JSON")


class TestRefusals:
    @pytest.mark.parametrize(
        ("lines", "sentence"),
        [
            (["user,item", "1,2"], "has no JSON object in its first lines"),
            (['{"ratings": [', '{"user": 1, "item": 2}', "]}"], None),
            ([{"user": 1, "price": 2}], "has no item column, only user, price"),
            ([{"a": 1}], "has no user and no item column, only a"),
            (["", "  "], "holds no rows"),
            (['[{"user": 1}]'], "a JSON array, which is not supported: write one object a line"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path: Path, lines: list[object], sentence: str | None) -> None:
        """The sentence names the file and the problem."""
        path = write(tmp_path / "t.jsonl", *lines)
        with pytest.raises(DataError, match=r"t\.jsonl") as refusal:
            datasets.read(path)
        assert (sentence or "2 of 3 rows are bad") in str(refusal.value)
        assert "\n" not in str(refusal.value)


class TestDirectories:
    def test_part_files_are_one_set(self, tmp_path: Path) -> None:
        """In order of their names, without their writer's notes; bad rows name their file."""
        write(tmp_path / "part-00001.json", GOOD | {"user_id": "b"}, "{")
        write(tmp_path / "part-00000.json", {"item": "i", "user": "a", "stars": 1, "ts": 1609556645})
        (tmp_path / "part-00002.json").write_bytes(b"")
        write(tmp_path / "_SUCCESS.json", "nothing")
        write(tmp_path / ".part-00000.json", "nothing")
        write(tmp_path / "notes.txt", "nothing")
        data = datasets.read(str(tmp_path))
        assert triples(data) == [("a", "i", 1.0), ("b", "i", 3.0)]
        assert data.report.bad_examples[0].startswith("part-00001.json:2: not JSON")
        assert data.report.notes == (f"3 files of {tmp_path} were read.",)
        both = b"".join((tmp_path / f"part-0000{n}.json").read_bytes() for n in (0, 1))
        expected = f"sha256:{hashlib.sha256(both).hexdigest()}"
        assert datasets.fingerprint(str(tmp_path)) == data.fingerprint == expected

    def test_files_that_do_not_agree_are_refused(self, tmp_path: Path) -> None:
        """Ratings in one and none in the other cannot be one set."""
        write(tmp_path / "a.jsonl", GOOD)
        write(tmp_path / "b.jsonl", {"user": 1, "item": 2, "timestamp": 3})
        with pytest.raises(DataError, match=r"a\.jsonl has a rating column and .*b\.jsonl has none"):
            datasets.read(str(tmp_path))

    def test_two_formats_are_refused(self, tmp_path: Path) -> None:
        """It is unclear which of them is meant."""
        write(tmp_path / "a.jsonl", GOOD)
        write(tmp_path / "b.parquet", "")
        with pytest.raises(DataError, match="both JSONL and Parquet"):
            datasets.read(str(tmp_path))
