"""`recollect archive export`: the archive's lines, or their fields as columns, to a file or standard output.

Invariant: JSONL holds the committed lines, in schema 1 or byte for byte as stored; the columns of CSV and Parquet are
the fields of the lines under their own names. A file appears under its name only when it is complete, and replaces
another one only with `--force`.
"""

import csv
import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, Literal, TypeAlias

import orjson

from ops.commands.archive_query import ALL_COLUMNS, COLUMNS
from ops.console.csv_cell import csv_cell
from ops.console.progress import StageProgress
from ops.console.terminal import EscapingBytes
from ops.options.period import Period
from service.errors import RunError, UsageError
from telemetry.archive.archive_files import DEAD_LETTERS
from telemetry.archive.archive_reader import expanded
from telemetry.archive.archive_snapshot import OpenFile, open_files
from telemetry.archive.parquet_file import FIELDS, LETTER_FIELDS, write_lines
from telemetry.errors import ArchiveError

ExportFormat: TypeAlias = Literal["jsonl", "csv", "parquet"]
STDOUT: Final = "-"
_REPORT_EVERY_LINES: Final = 20_000


def export(
    root: Path,
    out: str,
    form: ExportFormat,
    period: Period,
    of_class: str | None,
    *,
    letters: bool = False,
    stored: bool = False,
    force: bool = False,
) -> int:
    """Export events or dead letters.

    Args:
        out: A path, or "-" for standard output.
        period: By `received_at`; for dead letters, by when they were written.
        of_class: Only this class, or None for all.
        letters: Dead letters instead of events.
        stored: In JSONL, the bytes as stored; otherwise the items of a served list are an object each.
        force: Whether an existing file may be replaced.

    Returns:
        The number of lines or rows.

    Raises:
        UsageError: The options contradict each other, or the file exists.
        RunError: The file cannot be written.
        ArchiveError: The archive cannot be read, or DuckDB is missing.
    """
    if form == "parquet" and out == STDOUT:
        raise UsageError("Parquet needs a file: name one with --out.")
    if letters and of_class is not None:
        raise UsageError("Dead letters have no class.")
    if stored and form != "jsonl":
        raise UsageError("--as-stored requires --format jsonl.")
    if out != STDOUT:
        _require_free(Path(out), force=force)
    with StageProgress() as stages, open_files(root, DEAD_LETTERS if letters else None) as files:
        lines = _selected([file for file in files if file.is_dead_letters == letters], period, of_class, stages)
        if not stored and form != "parquet":
            lines = expanded(lines)
        if out == STDOUT:
            file = EscapingBytes(sys.stdout.buffer) if sys.stdout.isatty() else sys.stdout.buffer
            return _write(file, lines, form, _columns(of_class, letters=letters))
        return _write_file(Path(out), lines, form, of_class, letters=letters, force=force)


def _require_free(path: Path, *, force: bool) -> None:
    """Refuse before anything is read."""
    if path.exists() and not path.is_file():
        kind = "a directory" if path.is_dir() else "no regular file"
        raise UsageError(f"{path} is {kind}; name a file with --out, or - for standard output.")
    if path.exists() and not force:
        raise UsageError(f"{path} exists; name another file, or replace it with --force.")


def _columns(of_class: str | None, *, letters: bool) -> Sequence[str]:
    if letters:
        return tuple(LETTER_FIELDS)
    return ALL_COLUMNS if of_class is None else COLUMNS[of_class]


def _selected(files: list[OpenFile], period: Period, of_class: str | None, stages: StageProgress) -> Iterator[bytes]:
    total = sum(file.lines for file in files)
    done = 0
    for file in files:
        if not file.is_dead_letters and not period.overlaps(file.day):
            done += file.lines
            continue
        for line in file.read():
            done += 1
            if done % _REPORT_EVERY_LINES == 0:
                stages("exporting", done, total)
            if (period or of_class) and not _is_selected(line, period, of_class):
                continue
            yield line


def _is_selected(line: bytes, period: Period, of_class: str | None) -> bool:
    try:
        fields = orjson.loads(line)
        at = fields["at"] if fields["class"] == "dead_letter" else fields["received_at"]
        return at in period and of_class in {None, fields["class"]}
    except (ValueError, TypeError, KeyError) as error:
        raise ArchiveError(f"A line of the archive cannot be read: {error}.") from None


def _write_file(
    path: Path, lines: Iterator[bytes], form: ExportFormat, of_class: str | None, *, letters: bool, force: bool
) -> int:
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}.unfinished")
    try:
        if form == "parquet":
            count = write_lines(unfinished, lines, LETTER_FIELDS if letters else FIELDS)
        else:
            # User data: readable by its owner alone.
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                count = _write(file, lines, form, _columns(of_class, letters=letters))
        rename_into_place(unfinished, path, force=force)
    except FileExistsError:
        raise UsageError(f"Another process made {path} meanwhile; replace it with --force.") from None
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return count


def rename_into_place(unfinished: Path, path: Path, *, force: bool) -> None:
    """Rename a complete file; raises FileExistsError if there is one and `force` is False."""
    if not force:
        # A link replaces no file, not even one made since; some file systems have no links.
        try:
            os.link(unfinished, path)
        except FileExistsError:
            raise
        except OSError:
            if path.exists():
                raise FileExistsError from None
        else:
            return
    unfinished.replace(path)


def _write(file: IO[bytes] | EscapingBytes, lines: Iterable[bytes], form: ExportFormat, columns: Sequence[str]) -> int:
    count = 0
    if form == "jsonl":
        for line in lines:
            file.write(line)
            count += 1
    else:
        writer = csv.writer(_Encoded(file), lineterminator="\n")
        writer.writerow(columns)
        for line in lines:
            fields = orjson.loads(line)
            writer.writerow([_cell(fields.get(name)) for name in columns])
            count += 1
    file.flush()
    return count


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else csv_cell(value)


class _Encoded:
    """The file that `csv` writes text to, encoded as UTF-8."""

    def __init__(self, file: IO[bytes] | EscapingBytes) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())
