import hashlib
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import DataError
from service.training.data import datasets
from service.training.data.data_request import DEFAULT_OPTIONS
from service.training.data.formats.parquet_rows import read_parquet
from service.training.data.row_collector import RowCollector
from service.training.data.sources import DataFile
from service.training.interactions import no_progress
from tests.support.interactions import times, triples
from tests.support.models.source_rows import read_rows


def write(path: Path, columns: dict[str, Any], **options: Any) -> str:
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


IDS = ["7", "42", "7"]


class TestTypes:
    @pytest.mark.parametrize(
        "users",
        [
            *(pa.array([7, 42, 7], kind()) for kind in (pa.int8, pa.int32, pa.int64, pa.uint16, pa.uint64)),
            *(pa.array(IDS, kind()) for kind in (pa.string, pa.large_string, pa.string_view)),
            *(pa.array([b"7", b"42", b"7"], kind()) for kind in (pa.binary, pa.large_binary, pa.binary_view)),
            *(pa.array([7, 42, 7], kind()) for kind in (pa.float32, pa.float64)),
            pa.array([Decimal(7), Decimal(42), Decimal(7)], pa.decimal128(20, 0)),
            pa.array([Decimal(7), Decimal(42), Decimal(7)], pa.decimal256(40, 3)),
            pa.array(IDS).dictionary_encode(),
            pa.array([7, 42, 7], pa.int32()).dictionary_encode(),
        ],
        ids=lambda column: str(column.type),
    )
    def test_ids(self, tmp_path: Path, users: pa.Array) -> None:
        """Texts, whole numbers of any width, and dictionaries of them."""
        path = write(tmp_path / "t.parquet", {"item_id": users, "user_id": [1, 2, 3]})
        data = datasets.read(path)
        assert triples(data) == [("1", "7", 1.0), ("2", "42", 1.0), ("3", "7", 1.0)]
        assert data.timestamps is None

    @pytest.mark.parametrize(
        "ratings",
        [
            *(pa.array([4, 2, 5], kind()) for kind in (pa.int8, pa.uint64, pa.float16, pa.float32, pa.float64)),
            pa.array([Decimal("4.00"), Decimal("2.00"), Decimal(5)], pa.decimal128(5, 2)),
            pa.array(["4", " 2.0 ", "5e0"]),
            pa.array(["4", "2", "5"]).dictionary_encode(),
            pa.array([4.0, 2.0, 5.0]).dictionary_encode(),
        ],
        ids=lambda column: str(column.type),
    )
    def test_ratings(self, tmp_path: Path, ratings: pa.Array) -> None:
        """Numbers of any kind, and texts of them."""
        path = write(tmp_path / "t.parquet", {"user": IDS, "item": [1, 2, 3], "stars": ratings})
        assert datasets.read(path).ratings.tolist() == [4.0, 2.0, 5.0]

    @pytest.mark.parametrize(
        "stamps",
        [
            *(
                pa.array([1609556645 * per_second + per_second // 2], pa.timestamp(unit, zone))
                for unit, per_second in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9))
                for zone in (None, "UTC", "Europe/Prague")
            ),
            pa.array([datetime(2021, 1, 2, 3, 4, 5, tzinfo=UTC)]),
            pa.array([1609556645], pa.uint32()),
            pa.array([1609556645123], pa.int64()),
            pa.array([1609556645123456], pa.uint64()),
            pa.array([1609556645.75]),
            pa.array([1.609556645e18]),
            pa.array([Decimal("1609556645.5")]),
            pa.array(["2021-01-02T04:04:05+01:00"]),
            pa.array(["1609556645"]).dictionary_encode(),
        ],
        ids=lambda column: str(column.type),
    )
    def test_times(self, tmp_path: Path, stamps: pa.Array) -> None:
        """Timestamps of any unit and zone, and every form of a table; all are unix seconds, rounded down."""
        path = write(tmp_path / "t.parquet", {"user": ["u"], "item": ["i"], "timestamp": stamps})
        assert times(datasets.read(path)) == [1609556645]

    @pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
    def test_dates(self, tmp_path: Path, kind: pa.DataType) -> None:
        """A day is its first second in UTC, before 1970 too."""
        days = pa.array([date(2021, 1, 2), date(1969, 12, 31)], kind)
        path = write(tmp_path / "t.parquet", {"user": ["u", "v"], "item": ["i", "i"], "date": days})
        assert times(datasets.read(path)) == [1609545600, -86400]

    def test_times_before_1970_are_rounded_down_too(self, tmp_path: Path) -> None:
        """Half a second before the epoch is in second -1."""
        stamps = pa.array([-1, -1000], pa.timestamp("ms"))
        path = write(tmp_path / "t.parquet", {"user": ["u", "v"], "item": ["i", "i"], "ts": stamps})
        assert times(datasets.read(path)) == [-1, -1]

    @pytest.mark.parametrize(
        ("name", "column", "what"),
        [
            ("user", pa.array([True]), "user id"),
            ("item", pa.array([["i"]]), "item id"),
            ("rating", pa.array([{"stars": 1}]), "rating"),
            ("timestamp", pa.array([b"1"]), "timestamp"),
        ],
    )
    def test_an_unsuitable_type_is_refused(self, tmp_path: Path, name: str, column: pa.Array, what: str) -> None:
        """The sentence names it; nothing is converted by a guess."""
        columns = {"user": ["u"], "item": ["i"], "rating": [1.0], "timestamp": [1]} | {name: column}
        with pytest.raises(DataError, match=rf"t\.parquet: the column '{name}' is of type .* which is no {what}"):
            datasets.read(write(tmp_path / "t.parquet", columns))


class TestRows:
    def test_bad_rows_are_located_by_their_numbers(self, tmp_path: Path) -> None:
        """Every kind of error, over batches and row groups."""
        n = 24
        columns: dict[str, list[Any]] = {
            "user": [f"u{i}" for i in range(n)],
            "item": [float(i) for i in range(n)],
            "rating": [3.5] * n,
            "timestamp": [datetime(2021, 1, 2, 3, 4, 5, tzinfo=UTC)] * n,
        }
        bad = {
            2: ("user", None, "the user id is empty"),
            3: ("user", " ", "the user id is empty"),
            5: ("user", "a\x07b", "the user id 'a\\x07b' is not of 1 to 128 characters without control characters"),
            6: ("item", 4.5, "the item id '4.5' is neither a text nor a whole number"),
            10: ("item", None, "the item id is empty"),
            11: ("rating", None, "the rating is empty"),
            12: ("rating", float("nan"), "the rating 'nan' is not a finite number"),
            13: ("rating", 1e39, "the rating '1e+39' is not a finite number"),
            20: ("timestamp", None, "the timestamp is empty"),
        }
        for number, (name, value, _) in bad.items():
            columns[name][number - 1] = value
        rows = read_rows(read_parquet, write(tmp_path / "t.parquet", columns, row_group_size=7), batch_rows=3)
        assert rows.bad_examples == [f"t.parquet:{number}: {reason}" for number, (_, _, reason) in bad.items()]
        assert (rows.n_rows, rows.n_bad_rows) == (n, len(bad))

    @pytest.mark.parametrize(
        "stamps",
        [
            pa.array([1000, 10**18, 2000], pa.timestamp("ms")),
            pa.array([1.0, float("inf"), 2.0]),
            pa.array([1, 2**62, 2], pa.int64()),
            pa.array(["1", "x", "2"]),
        ],
        ids=lambda column: str(column.type),
    )
    def test_times_out_of_bounds(self, tmp_path: Path, stamps: pa.Array) -> None:
        """Years from 1 to 9999 are times; 2^62, as nanoseconds, is the year 2116."""
        path = write(tmp_path / "t.parquet", {"user": [1, 2, 3], "item": ["i"] * 3, "time": stamps})
        data = datasets.read(path)
        if stamps.type == pa.int64():
            assert times(data) == [1, 2**62 // 10**9, 2]
        else:
            assert times(data) == [1, 2]
            assert data.report.bad_examples[0].startswith("t.parquet:2: the timestamp ")

    def test_unused_columns_are_not_read(self, tmp_path: Path) -> None:
        """A column of another type, or with a broken name, does not matter."""
        path = write(tmp_path / "t.parquet", {"notes": [["a"]], "user": [1], "": [None], "item": [2]})
        assert triples(datasets.read(path)) == [("1", "2", 1.0)]

    def test_a_file_of_part_files(self, tmp_path: Path) -> None:
        """As Spark writes them; types may differ from file to file, and one may be empty."""
        write(tmp_path / "part-1.snappy.parquet", {"user": pa.array([7], pa.int32()), "item": ["a"]})
        write(
            tmp_path / "part-0.snappy.parquet", {"user": pa.array([], pa.string()), "item": pa.array([], pa.string())}
        )
        write(tmp_path / "part-2.snappy.parquet", {"item": ["b"], "user": ["7"]})
        (tmp_path / "_SUCCESS").write_bytes(b"")
        data = datasets.read(str(tmp_path))
        assert triples(data) == [("7", "a", 1.0), ("7", "b", 1.0)]
        assert data.report.files == tuple(f"part-{n}.snappy.parquet" for n in (0, 1, 2))
        assert data.fingerprint == datasets.fingerprint(str(tmp_path))

    def test_progress_and_fingerprint_are_of_the_bytes(self, tmp_path: Path) -> None:
        """The bar moves with every batch and ends with the file; the fingerprint is that of any other file."""
        path = write(tmp_path / "data.bin", {"user": list(range(95)), "item": [1] * 95})
        updates: list[int] = []
        data = datasets.read(path, lambda _stage, done, _total: updates.append(done))
        content = Path(path).read_bytes()
        assert updates[-1] == len(content)
        collector, chunks = RowCollector(), list[bytes]()
        read_parquet(DataFile(Path(path), path), DEFAULT_OPTIONS, collector, chunks.append, batch_rows=10)
        assert len(chunks) > 9
        assert data.fingerprint == datasets.fingerprint(path) == f"sha256:{hashlib.sha256(content).hexdigest()}"


class TestRefusals:
    def test_missing_columns(self, tmp_path: Path) -> None:
        """The sentence names those of the file."""
        with pytest.raises(DataError, match=r"t\.parquet has no user column, only who, item; call the columns"):
            datasets.read(write(tmp_path / "t.parquet", {"who": [1], "item": [2]}))

    def test_no_rows(self, tmp_path: Path) -> None:
        """A file of columns alone is refused."""
        empty = pa.array([], pa.int32())
        with pytest.raises(DataError, match="holds no rows"):
            datasets.read(write(tmp_path / "t.parquet", {"user": empty, "item": empty}))

    def test_a_damaged_file_is_refused_in_one_sentence(self, tmp_path: Path) -> None:
        """At any place of the damage."""
        rng = np.random.default_rng(0)
        users, items = rng.integers(1000, size=(2, 3000))
        whole = Path(write(tmp_path / "whole.parquet", {"user": users, "item": items})).read_bytes()
        damaged = tmp_path / "t.parquet"
        refusals: list[str] = []
        for attempt in range(60):
            content = bytearray(whole)
            if attempt % 3 == 0:
                del content[int(rng.integers(1, len(whole))) :]
            else:
                content[int(rng.integers(len(whole)))] ^= 0xFF
            damaged.write_bytes(content)
            try:
                datasets.read(str(damaged), no_progress)
            except DataError as refusal:
                refusals.append(str(refusal))
        assert len(refusals) > 20
        assert all("t.parquet" in refusal and "\n" not in refusal for refusal in refusals)
