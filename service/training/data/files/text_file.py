"""Opens a text file as UTF-8, whatever its compression and encoding, and reads it in blocks of whole lines.

Invariants:

1. Compression is detected by the first bytes, not by the name. Memory does not grow with the file.
2. The raw bytes are read once, in order, and all of them are passed to `on_raw`, which can hash them.
3. A broken file ends in a `DataError` that names it.
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
BYTE_ORDER_MARK: Final = codecs.BOM_UTF8
# The longest first: the mark of UTF-32 begins with that of UTF-16.
_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MARK_BYTES: Final = 4
_CHUNK_BYTES: Final = 1 << 20
_LINE_LIMIT_BYTES: Final = 256 << 20
COMPRESSED_SUFFIXES: Final = (".gz", ".bz2", ".xz", ".zst")


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""
        ...


def detect_compression(head: bytes) -> str | None:
    """Return the compression of a file by its first bytes; None if it is not compressed."""
    return next((name for magic, name in _MAGICS.items() if head.startswith(magic)), None)


@contextmanager
def open_text(path: Path, encoding: str | None, on_raw: Callable[[bytes], None] | None = None) -> Iterator[Readable]:
    """Open a file as UTF-8 text, with a byte order mark of UTF-8 if it has one.

    Args:
        path: The file.
        encoding: Its encoding; None for UTF-8. A byte order mark takes precedence.
        on_raw: Called with the raw bytes of the file, in order, all of them before the block ends.

    Raises:
        DataError: The file is broken, or not in this encoding.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(max(map(len, _MAGICS)))
        file.seek(0)
        raw = _ObservedFile(file, on_raw)
        with _broken_file_errors(path, detect_compression(head)):
            text = _decompressed(raw, head)
            yield _decoded(text, encoding, path)
            while raw.read(_CHUNK_BYTES):
                pass


def line_blocks(file: Readable, name: str, size_bytes: int) -> Iterator[bytes]:
    """Read a file in blocks that end with a newline, except perhaps the last.

    Blocks are of about `size_bytes`, and messages call the file `name`.

    Raises:
        DataError: A line is longer than 256 MiB.
        OSError: The file cannot be read.
    """
    rest, following = b"", file.read(size_bytes)
    while following:
        block, following = following, file.read(size_bytes)
        end = block.rfind(b"\n") + 1 if following else len(block)
        if end:
            yield rest + block[:end]
            rest = block[end:]
        else:
            rest += block
            if len(rest) > _LINE_LIMIT_BYTES:
                raise DataError(f"{name} is no text of rows: it has a line of over {_LINE_LIMIT_BYTES >> 20} MiB.")
    if rest:
        yield rest


@contextmanager
def _broken_file_errors(path: Path, compression: str | None) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        # gzip, bzip2 and pyarrow's Zstandard raise OSError for a broken file, too, but without a number.
        if compression is None or getattr(error, "errno", None) is not None:
            raise
        raise DataError(f"{path} is broken: {compression} cannot decompress it ({error}).") from error


class _ObservedFile(io.RawIOBase):
    """A file that passes every byte read to a callback."""

    def __init__(self, file: io.BufferedReader, on_raw: Callable[[bytes], None] | None) -> None:
        self._file = file
        self._on_raw = on_raw

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._file.read(size)
        if chunk and self._on_raw is not None:
            self._on_raw(chunk)
        return chunk

    def readable(self) -> bool:
        return True


def _decompressed(raw: _ObservedFile, head: bytes) -> Readable:
    file = cast("io.BufferedReader", raw)
    match detect_compression(head):
        case "gzip":
            return gzip.GzipFile(fileobj=file, mode="rb")
        case "bzip2":
            return bz2.BZ2File(file)
        case "xz":
            return lzma.LZMAFile(file)
        case "Zstandard":
            # Imported here, because only Zstandard needs pyarrow.
            import pyarrow as pa

            return cast("Readable", pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))
        case _:
            return raw


def _decoded(text: Readable, encoding: str | None, path: Path) -> Readable:
    head = b""
    while len(head) < _MARK_BYTES and (chunk := text.read(_MARK_BYTES - len(head))):
        head += chunk
    marked = next((name for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), None)
    encoding = marked or encoding
    whole = _PrefixedStream(head, text)
    if encoding is None or codecs.lookup(encoding).name == "utf-8":
        return whole
    return _PrefixedStream(b"", _Utf8Stream(whole, encoding, path))


class _PrefixedStream:
    """Bytes that were read already, then the rest of a stream; a read is short only at the end."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._pending = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        chunks = [self._pending]
        n_bytes = len(self._pending)
        while n_bytes < size and (chunk := self._rest.read(size - n_bytes)):
            chunks.append(chunk)
            n_bytes += len(chunk)
        text = b"".join(chunks)
        self._pending = text[size:]
        return text[:size]


class _Utf8Stream:
    """A stream in another encoding, as UTF-8."""

    def __init__(self, text: Readable, encoding: str, path: Path) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="strict")
        self._encoding = encoding
        self._path = path

    def read(self, size: int, /) -> bytes:
        while chunk := self._text.read(size):
            if decoded := self._decode(chunk, final=False):
                return decoded
        return self._decode(b"", final=True)

    def _decode(self, chunk: bytes, *, final: bool) -> bytes:
        try:
            # Some codecs decode a lone surrogate from UTF-16, which is no character.
            return self._decoder.decode(chunk, final).encode("utf-8", "replace")
        except UnicodeError as error:
            raise DataError(f"{self._path} is not encoded in {self._encoding}: {error}.") from error
