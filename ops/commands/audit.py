"""`recollect audit`: what became of every event, read from the spool and the archive, running or stopped.

Invariant, the order of reading: first the slots, which bound the audit (later events are not looked at), then the
spooled lines, then the catalogue and the files it names at one moment. An event moves only from the spool to the
archive, so an event in none of the three is lost.
"""

import json
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from ops.console.progress import StageProgress
from ops.console.receipt import AuditReceipt
from ops.options.period import Period
from service.config import Config, from_env
from telemetry.archive.archive_snapshot import ArchiveSnapshot, OpenFile, open_snapshot
from telemetry.archive.dead_letters import decode_letter
from telemetry.audit.duplicates import DuplicateFinder, IdHashes
from telemetry.audit.event_outline import EventOutline, parse_outline
from telemetry.audit.reconciliation import Reconciliation
from telemetry.batch import Position
from telemetry.catalogue.catalogue_file import query_catalogue
from telemetry.catalogue.commit import Progress
from telemetry.errors import ArchiveError, BadBatchError
from telemetry.wal.slot_inspection import SlotAccount, inspect_slots, spooled_lines

# A replica whose disk failed gives some numbers to other events, and one that takes a new identity leaves shipped
# events to the stream: both look like a loss for a moment.
_ATTEMPTS: Final = 4
_RETRY_PAUSE_S: Final = 1.0
_POLL_S: Final = 0.2
_REPORT_EVERY_LINES: Final = 50_000
_MAX_BAD_LINES: Final = 5


def command(
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Only events received since this date or RFC 3339 time."),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME", help="Only events received up to this date, or before this time."),
    ] = None,
    wait_s: Annotated[
        float | None, typer.Option("--wait", min=0, help="Wait so many seconds until nothing is in flight.")
    ] = None,
    erased: Annotated[
        str | None, typer.Option("--erased", metavar="ID", help="Search for data of an erased user instead.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,  # noqa: FBT002 - typer reads it
) -> int:
    """Prove that no event is lost or duplicated, or name those that are."""
    config = from_env(os.environ)
    allow_open_files()
    if erased is not None:
        from ops.commands.audit_erasure import print_search, search

        return print_search(search(config, erased), as_json=as_json)
    with StageProgress() as stages:
        receipt = audit(config, Period.parse(start, end), wait_s, stages)
    print(json.dumps(receipt.as_json(), ensure_ascii=False) if as_json else receipt.as_text())
    return 0 if receipt.ok else 1


def allow_open_files() -> None:
    """Raise the limit of open files: all files of an archive are open at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def audit(
    config: Config,
    period: Period,
    wait_s: float | None = None,
    stages: StageProgress | None = None,
    *,
    retry_pause_s: float = _RETRY_PAUSE_S,
) -> AuditReceipt:
    """Account for every event.

    Args:
        period: The events to count; accounts are balanced over everything.
        wait_s: How long to wait until the events accepted now are archived.
        retry_pause_s: The pause before the spool is inspected again after an apparent loss.
    """
    spool = _inspect_spool(config, retry_pause_s)
    if wait_s is not None:
        _await_archived(config.archive_dir, spool, wait_s)
    reconciliation = Reconciliation()
    spool.add_to(reconciliation, period)
    with open_snapshot(config.archive_dir) as archive:
        breaches = _add_archive(archive, reconciliation, period, config.consumer.seen_days, stages)
    return AuditReceipt(period, reconciliation.accounts(), spool.slots, breaches, wait_s)


@dataclass(frozen=True)
class _SpoolContents:
    """The slots, and the lines in their write-ahead logs."""

    accounts: list[SlotAccount]
    lines: list[EventOutline]

    @property
    def slots(self) -> dict[str, int]:
        return {account.producer: account.slot for account in self.accounts if account.producer}

    @property
    def accepted(self) -> dict[tuple[str, int], int]:
        """The highest accepted number of each (producer, epoch)."""
        accepted: dict[tuple[str, int], int] = {}
        for account in self.accounts:
            for held in account.epochs:
                key = (held.producer, held.epoch)
                accepted[key] = max(accepted.get(key, 0), held.last_seq)
        return accepted

    def add_to(self, reconciliation: Reconciliation, period: Period) -> None:
        for (producer, epoch), last_seq in self.accepted.items():
            reconciliation.set_accepted(producer, epoch, last_seq)
        for event in self.lines:
            reconciliation.add_spooled(event, inside=event.received_at in period)
        if period.end is None:
            # Unrecorded drops have no time, but are not older than the newest gap record.
            for account in self.accounts:
                if any(account.unrecorded.values()):
                    producer = account.producer or f"slot {account.slot}"
                    reconciliation.add_unrecorded(producer, account.epoch, account.unrecorded)


def _inspect_spool(config: Config, retry_pause_s: float) -> _SpoolContents:
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(retry_pause_s)
        spool = _SpoolContents(inspect_slots(config.spool_dir), list(_spooled(config.spool_dir)))
        reconciliation = Reconciliation()
        spool.add_to(reconciliation, Period())
        for (producer, epoch), seq in _watermarks(config.archive_dir).items():
            reconciliation.set_progress(producer, epoch, Progress(seq))
        if not reconciliation.lost():
            break
    return spool


def _spooled(spool: Path) -> Iterator[EventOutline]:
    for _, line in spooled_lines(spool):
        try:
            yield parse_outline(line)
        except ValueError:
            # Its checksum matches, so it was written so; its number is reported as missing.
            continue


def _watermarks(archive: Path) -> dict[tuple[str, int], int]:
    return {(row[0], row[1]): row[2] for row in query_catalogue(archive, "SELECT producer, epoch, seq FROM progress")}


def _await_archived(archive: Path, spool: _SpoolContents, wait_s: float) -> None:
    deadline_s = time.monotonic() + wait_s
    while True:
        watermarks = _watermarks(archive)
        behind = any(watermarks.get(key, 0) < last_seq for key, last_seq in spool.accepted.items())
        if not behind or time.monotonic() >= deadline_s:
            return
        time.sleep(_POLL_S)


def _add_archive(
    archive: ArchiveSnapshot,
    reconciliation: Reconciliation,
    period: Period,
    window_days: int,
    stages: StageProgress | None,
) -> list[str]:
    """Add the content of an archive; returns the breaches of its files."""
    for (producer, epoch), progress in archive.progress.items():
        reconciliation.set_progress(producer, epoch, progress)
    for removed in archive.removed:
        inside = None if removed.received_at is None else removed.received_at in period
        reconciliation.add_removed(removed, inside=inside)
    for retired in archive.retired:
        reconciliation.add_retired(retired, inside=period.overlaps(retired.day))
    breaches = [f"{path} is in the catalogue, but not on the disk" for path in archive.gone]
    files = [file for file in archive.files if not file.is_dead_letters]
    total = sum(file.lines for file in files)
    hashes = IdHashes()
    for done, event in enumerate(_outlines(files, breaches), 1):
        reconciliation.add_archived(event, inside=event.received_at in period)
        hashes.add(event)
        if stages is not None and done % _REPORT_EVERY_LINES == 0:
            stages("reading the archive", done, total)
    for file in archive.files:
        if file.is_dead_letters:
            _add_letters(file, reconciliation, breaches)
    if suspects := hashes.repeated():
        finder = DuplicateFinder(suspects, window_days)
        for event in _outlines(files, []):
            finder.add(event, inside=event.received_at in period)
        for name, event in finder.duplicates():
            reconciliation.add_duplicate_id(event, name)
    return breaches


def _outlines(files: list[OpenFile], breaches: list[str]) -> Iterator[EventOutline]:
    for file in files:
        bad = number = 0
        try:
            for number, line in enumerate(file.read(), 1):
                try:
                    event = parse_outline(line)
                except ValueError as error:
                    bad += 1
                    if bad <= _MAX_BAD_LINES:
                        breaches.append(f"{file.path}, line {number}: {error}")
                    continue
                if not event.received_at.startswith(file.day):
                    breaches.append(f"{file.path}, line {number}: it was received at {event.received_at}")
                yield event
        except ArchiveError as error:
            breaches.append(str(error).rstrip("."))
        if bad > _MAX_BAD_LINES:
            breaches.append(f"{file.path}: and {bad - _MAX_BAD_LINES} more lines")
        if number != file.lines:
            breaches.append(f"{file.path} has {number} lines, but {file.lines} according to the catalogue")


def _add_letters(file: OpenFile, reconciliation: Reconciliation, breaches: list[str]) -> None:
    try:
        for line in file.read():
            letter = decode_letter(line)
            epoch, seqs = letter.seqs
            if not seqs and letter.seq is None:
                seqs = _whole_entry(letter.entry_id)
            reconciliation.add_dead_letter(letter.producer, epoch, seqs)
    except ArchiveError as error:
        breaches.append(f"{file.path}: {str(error).rstrip('.')}")


def _whole_entry(entry_id: str) -> range:
    """Return the numbers that a letter of an older version, which does not name its first, may account for."""
    try:
        return range(1, Position.parse(entry_id).seq + 1)
    except BadBatchError:
        return range(0)
