"""`recollect audit`: the receipt, read from the spool and the archive, of a system that runs or is stopped.

Invariant, the order of reading: first the slots, which say how far every producer got (what is accepted
later is not looked at), then the lines that the spool holds, then the catalogue and the files it names at one moment.
An event moves only forwards, from the spool to the archive, so what none of the three knows is lost.
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
from ops.console.receipt import Receipt
from ops.options.period import Period
from service.config import Config, from_env
from telemetry.archive.archive_snapshot import ArchiveSnapshot, OpenFile, open_snapshot
from telemetry.archive.dead_letters import parse as parse_letter
from telemetry.audit.duplicates import Doubles, Ids
from telemetry.audit.event_outline import Line, parse
from telemetry.audit.reconciliation import Ledger
from telemetry.batch import Position
from telemetry.catalogue.catalogue_file import ask
from telemetry.catalogue.commit import Progress
from telemetry.errors import ArchiveError, BadBatchError
from telemetry.wal.slot_inspection import SlotAccount, inspect_slots, spooled_lines

# A replica whose disk refused gives some numbers to others, and one that takes a new identity leaves what it has sent
# to the stream: both look like a loss for a moment.
_LOOKS: Final = 4
_BETWEEN_LOOKS_S: Final = 1.0
_POLL_S: Final = 0.2
_REPORT_EVERY_LINES: Final = 50_000
_MOST_BAD_LINES: Final = 5


def command(
    start: Annotated[
        str | None, typer.Option("--from", help="Only events received since this date or RFC 3339 time.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="Only events received up to this date, or before this time.")
    ] = None,
    wait_s: Annotated[
        float | None, typer.Option("--wait", min=0, help="Wait so many seconds until nothing is in flight.")
    ] = None,
    erased: Annotated[
        str | None, typer.Option("--erased", metavar="ID", help="Search for data of an erased user instead.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,  # noqa: FBT002 - typer reads it
) -> int:
    """Prove what became of every event: nothing lost, nothing doubled, or say what is."""
    config = from_env(os.environ)
    allow_open_files()
    if erased is not None:
        from ops.commands.audit_erasure import search, tell

        return tell(search(config, erased), as_json=as_json)
    with StageProgress() as stages:
        receipt = audit(config, Period.parse(start, end), wait_s, stages)
    print(json.dumps(receipt.as_json(), ensure_ascii=False) if as_json else receipt.as_text())
    return 0 if receipt.ok else 1


def allow_open_files() -> None:
    """Let this process open as many files as it may: it holds all of an archive's at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def audit(config: Config, period: Period, wait_s: float | None = None, stages: StageProgress | None = None) -> Receipt:
    """Account for every event.

    Args:
        config: Where the spool and the archive are.
        period: What to count; accounts are balanced over everything.
        wait_s: How long to wait until what is accepted now is archived.
        stages: Told how far it has come.

    Returns:
        The receipt.

    Raises:
        TelemetryError: The spool or the catalogue cannot be read.
    """
    stock = _take_stock(config)
    if wait_s is not None:
        _await_archived(config.archive_dir, stock, wait_s)
    ledger = Ledger()
    stock.tell(ledger, period)
    with open_snapshot(config.archive_dir) as archive:
        breaches = _read_archive(archive, ledger, period, config.consumer.seen_days, stages)
    return Receipt(period, ledger.settle(), stock.slots, breaches, wait_s)


@dataclass(frozen=True)
class _Stock:
    """What the spool says.

    Attributes:
        accounts: How far every producer got.
        held: The lines that are in its logs.
    """

    accounts: list[SlotAccount]
    held: list[Line]

    @property
    def slots(self) -> dict[str, int]:
        return {account.producer: account.slot for account in self.accounts if account.producer}

    @property
    def reached(self) -> dict[tuple[str, int], int]:
        reached: dict[tuple[str, int], int] = {}
        for account in self.accounts:
            for held in account.epochs:
                key = (held.producer, held.epoch)
                reached[key] = max(reached.get(key, 0), held.last_seq)
        return reached

    def tell(self, ledger: Ledger, period: Period) -> None:
        for (producer, epoch), last_seq in self.reached.items():
            ledger.accepted(producer, epoch, last_seq)
        for line in self.held:
            ledger.held(line, inside=line.received_at in period)
        if period.end is None:
            # They have no time of their own, but they are not older than the newest gap record.
            for account in self.accounts:
                if any(account.unrecorded.values()):
                    ledger.unrecorded(account.producer or f"slot {account.slot}", account.epoch, account.unrecorded)


def _take_stock(config: Config) -> _Stock:
    for look in range(_LOOKS):
        if look:
            time.sleep(_BETWEEN_LOOKS_S)
        stock = _Stock(inspect_slots(config.spool_dir), list(_held(config.spool_dir)))
        ledger = Ledger()
        stock.tell(ledger, Period())
        for (producer, epoch), seq in _watermarks(config.archive_dir).items():
            ledger.progress(producer, epoch, Progress(seq))
        if not ledger.lost():
            break
    return stock


def _held(spool: Path) -> Iterator[Line]:
    for _, line in spooled_lines(spool):
        try:
            yield parse(line)
        except ValueError:
            # Its checksum is right, so it was written like this: its number will be missing, which is what it is.
            continue


def _watermarks(archive: Path) -> dict[tuple[str, int], int]:
    return {(row[0], row[1]): row[2] for row in ask(archive, "SELECT producer, epoch, seq FROM progress")}


def _await_archived(archive: Path, stock: _Stock, wait_s: float) -> None:
    deadline_s = time.monotonic() + wait_s
    while True:
        watermarks = _watermarks(archive)
        behind = any(watermarks.get(key, 0) < last_seq for key, last_seq in stock.reached.items())
        if not behind or time.monotonic() >= deadline_s:
            return
        time.sleep(_POLL_S)


def _read_archive(
    archive: ArchiveSnapshot, ledger: Ledger, period: Period, window_days: int, stages: StageProgress | None
) -> list[str]:
    """Tell a ledger everything that the archive says; returns what is wrong with files or ids."""
    for (producer, epoch), progress in archive.progress.items():
        ledger.progress(producer, epoch, progress)
    for row in archive.removed:
        ledger.removed(row, inside=None if row.received_at is None else row.received_at in period)
    for run in archive.retired:
        ledger.retired(run, inside=period.may_hold(run.day))
    breaches = [f"{path} is in the catalogue, but not on the disk" for path in archive.gone]
    events = [file for file in archive.files if not file.is_letters]
    total = sum(file.lines for file in events)
    ids = Ids()
    for done, line in enumerate(_parsed(events, breaches), 1):
        ledger.archived(line, inside=line.received_at in period)
        ids.add(line)
        if stages is not None and done % _REPORT_EVERY_LINES == 0:
            stages("reading the archive", done, total)
    for file in archive.files:
        if file.is_letters:
            _read_letters(file, ledger, breaches)
    _tell_doubles(events, ids, ledger, period, window_days)
    return breaches


def _parsed(files: list[OpenFile], breaches: list[str]) -> Iterator[Line]:
    for file in files:
        day = file.folder.removeprefix("date=")
        bad = number = 0
        try:
            for number, text in enumerate(file.read(), 1):
                try:
                    line = parse(text)
                except ValueError as error:
                    bad += 1
                    if bad <= _MOST_BAD_LINES:
                        breaches.append(f"{file.path}, line {number}: {error}")
                    continue
                if not line.received_at.startswith(day):
                    breaches.append(f"{file.path}, line {number}: it was received at {line.received_at}")
                yield line
        except ArchiveError as error:
            breaches.append(str(error))
        if bad > _MOST_BAD_LINES:
            breaches.append(f"{file.path}: and {bad - _MOST_BAD_LINES} more lines")
        if number != file.lines:
            breaches.append(f"{file.path} has {number} lines, and the catalogue says {file.lines}")


def _read_letters(file: OpenFile, ledger: Ledger, breaches: list[str]) -> None:
    try:
        for text in file.read():
            letter = parse_letter(text)
            epoch, numbers = letter.numbers
            if not numbers and letter.seq is None:
                numbers = _whole_entry(letter.entry_id)
            ledger.letter(letter.producer, epoch, numbers)
    except ArchiveError as error:
        breaches.append(f"{file.path}: {error}")


def _whole_entry(entry_id: str) -> range:
    """Return the numbers that a letter of an older version may account for: it did not say where its entry began."""
    try:
        return range(1, Position.parse(entry_id).seq + 1)
    except BadBatchError:
        return range(0)


def _tell_doubles(files: list[OpenFile], ids: Ids, ledger: Ledger, period: Period, window_days: int) -> None:
    suspects = ids.suspects()
    if not suspects:
        return
    doubles = Doubles(suspects, window_days)
    for line in _parsed(files, []):
        doubles.add(line, inside=line.received_at in period)
    for event_id, line in doubles.surplus():
        ledger.doubled(line.producer, line.epoch, event_id)
