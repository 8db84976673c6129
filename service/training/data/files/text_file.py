"""Opens a file of text as UTF-8, whatever it is compressed with and encoded in.

Invariants:

1. A compressed file is known by how it begins, not by its name. Memory does not grow with what it holds.
2. The raw bytes are read once, in order, and each of them is told to `on_raw`; so they can be hashed on the way.
3. What is broken ends in a `DataError` that names the file.
"""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol, cast

from service.errors import DataError

_GZIP: Final = b"\x1f\x8b"
_BZIP2: Final = b"BZh"
_XZ: Final = b"\xfd7zXZ\0"
_ZSTD: Final = b"(\xb5/\xfd"
_MAGICS: Final = {_GZIP: "gzip", _BZIP2: "bzip2", _XZ: "xz", _ZSTD: "Zstandard"}
# The longest first: the mark of UTF-32 begins with that of UTF-16.
_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MARK_BYTES: Final = 4
_PIECE_BYTES: Final = 1 << 20
COMPRESSED_SUFFIXES: Final = (".gz", ".bz2", ".xz", ".zst")


class Readable(Protocol):
    """Something that bytes can be read from, in order."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; nothing at the end."""
        ...


def detect_compression(head: bytes) -> str | None:
    """Return what a file is compressed with, or None.

    Args:
        head: Its first bytes.
    """
    return next((name for magic, name in _MAGICS.items() if head.startswith(magic)), None)


@contextmanager
def open_text(path: Path, encoding: str | None, on_raw: Callable[[bytes], None] | None = None) -> Iterator[Readable]:
    """Open a file as UTF-8 text.

    Args:
        path: The file.
        encoding: Its encoding; None for UTF-8, or for what its byte order mark says.
        on_raw: Called with the file's own bytes, in order. All of them have been told when the block ends.

    Yields:
        The text. A byte order mark of UTF-8 is left in it.

    Raises:
        DataError: It is broken, or not in this encoding.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(max(map(len, _MAGICS)))
        file.seek(0)
        raw = _Told(file, on_raw)
        with _broken(path, detect_compression(head)):
            text = _decompressed(raw, head)
            yield _decoded(text, encoding, path)
            while raw.read(_PIECE_BYTES):
                pass


@contextmanager
def _broken(path: Path, what: str | None) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise DataError(f"{path} is not whole: what {what} packed cannot be unpacked ({error})") from error
    except OSError as error:
        # bzip2 and pyarrow's Zstandard report a broken file so; an error of the system has a number.
        if what is None or error.errno is not None:
            raise
        raise DataError(f"{path} is not whole: what {what} packed cannot be unpacked ({error})") from error


class _Told:
    """A file that tells of every byte read from it. Decompressors ask for its other methods, too."""

    def __init__(self, file: io.BufferedReader, on_raw: Callable[[bytes], None] | None) -> None:
        self._file = file
        self._on_raw = on_raw
        self.closed = False

    def read(self, size: int = -1, /) -> bytes:
        piece = self._file.read(size)
        if piece and self._on_raw is not None:
            self._on_raw(piece)
        return piece

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    def flush(self) -> None:
        """Do nothing; a decompressor may ask for it."""


def _decompressed(raw: _Told, head: bytes) -> Readable:
    file = cast("io.BufferedReader", raw)
    match detect_compression(head):
        case "gzip":
            return gzip.GzipFile(fileobj=file, mode="rb")
        case "bzip2":
            return bz2.BZ2File(file)
        case "xz":
            return lzma.LZMAFile(file)
        case "Zstandard":
            # Only here: what is not compressed so has no use for pyarrow.
            import pyarrow as pa

            return cast("Readable", pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))
        case _:
            return raw


def _decoded(text: Readable, encoding: str | None, path: Path) -> Readable:
    head = b""
    while len(head) < _MARK_BYTES and (piece := text.read(_MARK_BYTES - len(head))):
        head += piece
    found = next((name for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), None)
    # A byte order mark says more than an option does.
    encoding = found or encoding
    whole = _Whole(head, text)
    if encoding is None or codecs.lookup(encoding).name == "utf-8":
        return whole
    return _Whole(b"", _Transcoded(whole, encoding, path))


class _Whole:
    """Bytes that were read already, then the rest of a stream; what is read is short at the end only."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._pending = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        pieces = [self._pending]
        n_bytes = len(self._pending)
        while n_bytes < size and (piece := self._rest.read(size - n_bytes)):
            pieces.append(piece)
            n_bytes += len(piece)
        text = b"".join(pieces)
        self._pending = text[size:]
        return text[:size]


class _Transcoded:
    """A stream in another encoding, as UTF-8."""

    def __init__(self, text: Readable, encoding: str, path: Path) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="strict")
        self._encoding = encoding
        self._path = path

    def read(self, size: int, /) -> bytes:
        while piece := self._text.read(size):
            if decoded := self._decode(piece, final=False):
                return decoded
        return self._decode(b"", final=True)

    def _decode(self, piece: bytes, *, final: bool) -> bytes:
        try:
            # A lone surrogate decodes from UTF-16 with some codecs; it is no character.
            return self._decoder.decode(piece, final).encode("utf-8", "replace")
        except UnicodeError as error:
            raise DataError(f"{self._path} is not encoded in {self._encoding}: {error}") from error
