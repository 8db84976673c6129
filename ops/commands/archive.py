"""`recollect archive`: list, export, compact and query the archive, and choose the journal of its catalogue."""

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Final, cast

import typer

from ops.commands.audit import allow_open_files
from ops.console.progress import StageProgress
from ops.options.period import Period, moment
from ops.options.shared_options import JsonOption
from service.config import Config, from_env
from service.errors import UsageError
from telemetry import events
from telemetry.catalogue.journal_kind import KINDS, JournalKind
from telemetry.ids import rfc3339_ms

app = typer.Typer(help="List, export, compact and query archived events.", no_args_is_help=False, rich_markup_mode=None)


_EXPORTS: Final = ("jsonl", "csv", "parquet")
_ANSWERS: Final = ("table", "json", "csv")
_CLASSES: Final = events.CLASSES
_DATE_LENGTH: Final = len("2026-11-21")


@app.command("list")
def list_(as_json: JsonOption = False) -> int:  # noqa: FBT002 - typer reads it
    """List the archive date by date."""
    from ops.commands.archive_list import as_text, list_folders

    with StageProgress() as stages:
        found = list_folders(_config().archive_dir, stages)
    print(json.dumps([folder.as_json() for folder in found]) if as_json else as_text(found))
    return 0


@app.command()
def export(
    out: Annotated[str, typer.Option("--out", help='A file, or "-" for standard output.')],
    form: Annotated[str, typer.Option("--format", help="jsonl (the lines themselves), csv or parquet.")] = "jsonl",
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="As for audit.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="As for audit.")] = None,
    of_class: Annotated[str | None, typer.Option("--class", help="Only served, feedback, system or item.")] = None,
    letters: Annotated[bool, typer.Option("--dead-letters", help="Dead letters instead of events.")] = False,  # noqa: FBT002 - typer reads it
    stored: Annotated[bool, typer.Option("--as-stored", help="As JSONL, byte for byte as archived.")] = False,  # noqa: FBT002 - typer reads it
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,  # noqa: FBT002 - typer reads it
) -> int:
    """Write events to a file."""
    from ops.commands.archive_export import STDOUT, ExportFormat
    from ops.commands.archive_export import export as run_export

    _require_one_of("--format", form, _EXPORTS)
    if of_class is not None:
        _require_one_of("--class", of_class, _CLASSES)
    period = Period.parse(start, end)
    count = run_export(
        _config().archive_dir,
        out,
        cast("ExportFormat", form),
        period,
        of_class,
        letters=letters,
        stored=stored,
        force=force,
    )
    if out != STDOUT:
        print(f"{count} {'letters' if letters else 'events'} written to {out}.")
    return 0


@app.command()
def compact(
    before: Annotated[
        str | None, typer.Option("--before", help="Dates before this one; today in UTC by default.")
    ] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - typer reads it
) -> int:
    """Make one Parquet file of each past date."""
    from telemetry.archive.compaction import compact as run_compaction

    today = rfc3339_ms(time.time())[:_DATE_LENGTH]
    day = moment("--before", before)[:_DATE_LENGTH] if before else today
    if day > today:
        raise UsageError(f"--before {day} is not past: events of today still arrive.")
    compacted = []
    with StageProgress() as stages:
        for result in run_compaction(_config().archive_dir, day, stages):
            if result.files:
                compacted.append(result)
                if not as_json:
                    print(
                        f"{result.day}: {result.lines} lines of {result.files} files, {result.before_bytes} bytes, "
                        f"are now {result.after_bytes} bytes of Parquet."
                    )
            if result.open_files:
                print(f"{result.day}: {result.open_files} files may still grow and were left.", file=sys.stderr)
    if as_json:
        print(json.dumps([result._asdict() for result in compacted]))
    elif not compacted:
        print(f"There is nothing to compact before {day}.")
    return 0


@app.command()
def query(
    sql: Annotated[
        str,
        typer.Argument(help="One SELECT over events, one of its classes, items of lists, or dead_letters."),
    ],
    form: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
) -> int:
    """Run an SQL query on the archive; needs the extra recollect[query]."""
    from ops.commands.archive_query import QueryFormat
    from ops.commands.archive_query import query as run_query

    _require_one_of("--format", form, _ANSWERS)
    return run_query(_config().archive_dir, sql, cast("QueryFormat", form))


@app.command()
def journal(
    kind: Annotated[
        str | None, typer.Argument(help="rollback where several machines share the archive, else write-ahead.")
    ] = None,
) -> int:
    """Show or change the journal of the archive's catalogue; no consumer may run."""
    from telemetry.catalogue.catalogue_file import change_journal

    if kind is not None:
        _require_one_of("The journal", kind, KINDS)
    print(change_journal(_config().archive_dir, cast("JournalKind | None", kind)))
    return 0


def _require_one_of(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UsageError(f"{option} must be {', '.join(known[:-1])} or {known[-1]}, not {value!r}.")


def _config() -> Config:
    # All files of the archive are open at once.
    allow_open_files()
    return from_env(os.environ)
