"""`recollect archive list`: the archive date by date."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.console.progress import StageProgress
from ops.console.table import table
from telemetry.archive.archive_snapshot import OpenFile, open_files
from telemetry.archive.retention import retired_days
from telemetry.audit.event_outline import parse_outline
from telemetry.errors import ArchiveError
from telemetry.events import CLASSES

_HEADING: Final = ("date", "files", "format", "bytes", *CLASSES, "first", "last")
_REPORT_EVERY_LINES: Final = 20_000
_TIME: Final = slice(len("2026-11-21T"), len("2026-11-21T01:02:03"))


@dataclass(slots=True)
class ArchiveFolder:
    """One folder of the archive.

    Attributes:
        name: The UTC date, YYYY-MM-DD, or `deadletters`.
        files: How many files.
        open_files: How many of them may still grow.
        formats: `jsonl`, `parquet`, or both.
        size_bytes: Committed bytes.
        events: Lines by class; dead letters count as `letters`.
        retired: How many of its events retention has removed.
        first: The first `received_at`; None for dead letters.
        last: The last `received_at`; None for dead letters.
    """

    name: str
    files: int = 0
    open_files: int = 0
    formats: set[str] = field(default_factory=set)
    size_bytes: int = 0
    events: Counter[str] = field(default_factory=Counter)
    first: str | None = None
    last: str | None = None
    retired: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return its object in `archive list --json`."""
        return {
            "date": self.name,
            "files": self.files,
            "open_files": self.open_files,
            "formats": sorted(self.formats),
            "bytes": self.size_bytes,
            "events": dict(self.events),
            "first": self.first,
            "last": self.last,
            "retired": self.retired,
        }


def list_folders(root: Path, stages: StageProgress) -> list[ArchiveFolder]:
    """Read every date, oldest first, also those that retention has removed, and then the dead letters."""
    found: dict[str, ArchiveFolder] = {}
    with open_files(root) as files:
        total = sum(file.lines for file in files)
        done = 0
        for file in files:
            folder = found.setdefault(file.day, ArchiveFolder(file.day))
            folder.files += 1
            folder.open_files += not file.sealed
            folder.formats.add("parquet" if file.is_parquet else "jsonl")
            folder.size_bytes += file.size_bytes
            if file.is_dead_letters:
                folder.events["letters"] += file.lines
            else:
                _count(folder, file)
            done += file.lines
            stages("reading the archive", done, total)
    for day, events in retired_days(root).items():
        found.setdefault(day, ArchiveFolder(day)).retired = events
    return [found[name] for name in sorted(found)]


def _count(folder: ArchiveFolder, file: OpenFile) -> None:
    for number, line in enumerate(file.read(), 1):
        try:
            event = parse_outline(line)
        except ValueError as error:
            raise ArchiveError(f"{file.full_path}, line {number}: {error}.") from None
        folder.events[event.of_class] += 1
        if folder.first is None or event.received_at < folder.first:
            folder.first = event.received_at
        if folder.last is None or event.received_at > folder.last:
            folder.last = event.received_at


def as_text(found: Sequence[ArchiveFolder]) -> str:
    """Return the table, and how much retention has removed."""
    rows = [
        (
            folder.name,
            f"{folder.files}" + (f" ({folder.open_files} open)" if folder.open_files else ""),
            "+".join(sorted(folder.formats)),
            str(folder.size_bytes),
            *(
                (str(folder.events[name]) for name in CLASSES)
                if folder.first is not None
                else (f"{folder.events['letters']} letters", *[""] * (len(CLASSES) - 1))
            ),
            (folder.first or "")[_TIME],
            (folder.last or "")[_TIME],
        )
        for folder in found
        if folder.files
    ]
    retired = [folder for folder in found if folder.retired]
    lines = [table(_HEADING, rows, left=(0, 1, 2))] if rows else []
    if retired:
        days = f"{retired[0].name}" if len(retired) == 1 else f"{len(retired)} dates up to {retired[-1].name}"
        lines.append(f"Retention has removed {sum(folder.retired for folder in retired)} events of {days}.")
    return "\n".join(lines) or "Nothing is archived yet."
