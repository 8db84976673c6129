"""Compressed files, zip archives and other encodings."""

import bz2
import gzip
import hashlib
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from service.errors import DataError, UsageError
from service.training.data import data_request, datasets
from tests.support.archives.small_tables import HEADER, ROWS, TRIPLES, read_with, write
from tests.support.interactions import triples


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


class TestCompressed:
    @pytest.mark.parametrize("suffix", PACKERS)
    @pytest.mark.parametrize("name", ["t.csv.", "anything."])
    def test_a_table(self, tmp_path: Path, suffix: str, name: str) -> None:
        """It is read with every compression, and its fingerprint is that of the compressed bytes."""
        packed = PACKERS[suffix]((HEADER + ROWS).encode())
        path = write(tmp_path / f"{name}{suffix}", packed)
        data = datasets.read(path)
        assert triples(data) == TRIPLES
        assert data.fingerprint == datasets.fingerprint(path) == f"sha256:{hashlib.sha256(packed).hexdigest()}"

    @pytest.mark.parametrize("suffix", PACKERS)
    def test_json_lines(self, tmp_path: Path, suffix: str) -> None:
        """The format is detected by the content."""
        path = write(tmp_path / f"t.{suffix}", PACKERS[suffix](b'{"user": "ann", "item": "p-1", "rating": 4.5}\n'))
        assert triples(datasets.read(path)) == TRIPLES[:1]

    @pytest.mark.parametrize("suffix", PACKERS)
    def test_a_broken_one_is_refused(self, tmp_path: Path, suffix: str) -> None:
        """A truncated file is not read in part."""
        packed = PACKERS[suffix]((HEADER + "".join(f"u{i},i{i * 7919 % 997},3,7\n" for i in range(5000))).encode())
        path = write(tmp_path / f"t.csv.{suffix}", packed[: len(packed) // 2])
        with pytest.raises(DataError, match=r"t\.csv\.\w+ is broken: \w+ cannot decompress it"):
            datasets.read(path)

    def test_a_compressed_parquet_file_is_refused(self, tmp_path: Path) -> None:
        """It cannot be read sequentially."""
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
        """A single file is read with any name; files that macOS adds do not count."""
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

    def test_bad_rows_name_the_file_in_the_archive(self, tmp_path: Path) -> None:
        """They do not name a temporary file."""
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

    def test_an_archive_larger_than_the_disk(self, tmp_path: Path) -> None:
        """It is refused by its declared sizes, before a byte is unpacked."""
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
    def test_a_byte_order_mark(self, tmp_path: Path, encoding: str) -> None:
        """It suffices for tables and JSON lines, compressed or not."""
        path = write(tmp_path / "t.csv", (HEADER + "änn,p-1,4.5,7\n").encode(encoding))
        assert triples(datasets.read(path)) == [("änn", "p-1", 4.5)]
        path = write(tmp_path / "j.gz", gzip.compress('{"user": "änn", "item": "p-1"}\n'.encode(encoding)))
        assert triples(datasets.read(path)) == [("änn", "p-1", 1.0)]

    @pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "shift_jis"])
    def test_an_option(self, tmp_path: Path, encoding: str) -> None:
        """Any encoding that Python knows."""
        user = "ユーザ" if encoding == "shift_jis" else "änn"
        path = write(tmp_path / "t.csv", (HEADER + f"{user},p-1,4.5,7\n").encode(encoding))
        assert triples(read_with(path, encoding=encoding)) == [(user, "p-1", 4.5)]

    def test_the_wrong_one_is_refused(self, tmp_path: Path) -> None:
        """The sentence names file and encoding."""
        path = write(tmp_path / "t.csv", (HEADER + "änn,p-1,4.5,7\n").encode("latin-1"))
        with pytest.raises(DataError, match=r"t\.csv is not encoded in ascii"):
            read_with(path, encoding="ascii")

    @pytest.mark.parametrize("encoding", ["nonsense", "base64", ""])
    def test_an_invalid_encoding(self, encoding: str) -> None:
        """Python's codecs that are no text encodings are refused, too."""
        with pytest.raises(UsageError, match="--encoding names no encoding of text"):
            data_request.parse(["x"], encoding=encoding)
