"""Recognises files of unsupported formats by their first bytes (pure)."""

import re
from typing import Final

from service.errors import DataError

_SUPPORTED: Final = "give a CSV, TSV, JSONL or Parquet file or a MovieLens directory"
_EXPORT: Final = "export a CSV or Parquet file from it"
_UNPACK: Final = "unpack it and give its files"
_AS_PARQUET: Final = "write it as Parquet"
_SQL: Final = (
    "a file of SQL statements",
    "export a CSV file with a header, as COPY … TO … WITH (FORMAT csv, HEADER) does",
)
_MAGICS: Final = {
    b"PK\x03\x04": ("a zip archive, broken or within another archive", _UNPACK),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", _UNPACK),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("a spreadsheet or another office document", "save it as CSV"),
    b"<!doctype": ("a web page", _SUPPORTED),
    b"<html": ("a web page", _SUPPORTED),
    b"<?xml": ("XML", _SUPPORTED),
    b"%pdf-": ("a PDF document", _SUPPORTED),
    b"sqlite format 3\0": ("an SQLite database", _EXPORT),
    b"\x93numpy": ("a NumPy array", _EXPORT),
    b"\x80\x03": ("a Python pickle", _EXPORT),
    b"\x80\x04": ("a Python pickle", _EXPORT),
    b"\x80\x05": ("a Python pickle", _EXPORT),
    b"obj\x01": ("an Avro file", _AS_PARQUET),
    b"\x89hdf\r\n\x1a\n": ("an HDF5 file", _EXPORT),
    b"version https://git-lfs": ("a pointer of Git LFS and not the file itself", "fetch it with git lfs pull"),
    b"create table": _SQL,
    b"insert into": _SQL,
    b"copy public.": _SQL,
    b"--\n-- postgresql": _SQL,
    b"-- mysql dump": _SQL,
}
# A text may begin with these bytes, so they count only in a file with NUL bytes.
_BINARY_MAGICS: Final = {
    b"\x1f\x8b": ("packed with gzip a second time", "unpack it once"),
    b"rar!": ("a RAR archive", _UNPACK),
    b"arrow1": ("an Arrow or Feather file", _AS_PARQUET),
    b"fea1": ("a Feather file", _AS_PARQUET),
    b"orc": ("an ORC file", _AS_PARQUET),
}
_TAR_OFFSET: Final = 257
_TAR: Final = b"ustar"
_JSON_ARRAY: Final = re.compile(rb"\s*\[\s*\{")


def refuse(name: str, head: bytes) -> None:
    """Refuse a file of an unsupported format by its first bytes.

    Raises:
        DataError: It is of such a format, which the sentence names.
    """
    start = head.lstrip(b" \t\r\n")[:32].lower()
    foreign = next((format_ for magic, format_ in _MAGICS.items() if start.startswith(magic.lower())), None)
    if foreign is None and b"\0" in head:
        foreign = next((format_ for magic, format_ in _BINARY_MAGICS.items() if start.startswith(magic)), None)
        if head[_TAR_OFFSET:].startswith(_TAR):
            foreign = ("a tar archive", _UNPACK)
    if foreign is None and _JSON_ARRAY.match(head):
        foreign = ("a JSON array", "write one object a line, as jq -c '.[]' does")
    if foreign is not None:
        description, advice = foreign
        raise DataError(f"{name} is {description}, which is not supported: {advice}.")
