"""`recollect deadletters`: list dead letters, retry or drop them.

Invariant: a letter is retried once. It is marked `retrying` before its events are accepted, and `retried` once they are
on the disk; after an interruption the next retry first searches the spool and the archive for its events.
"""

import asyncio
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from ops.console.table import table
from ops.options.shared_options import JsonOption
from service.config import Config, from_env
from service.errors import UsageError
from service.preflight import installed_archive
from service.redis_access import load_seal, redis_stream
from telemetry.archive.archive_lock import try_lock
from telemetry.archive.archive_reader import read
from telemetry.archive.dead_letters import DeadLetter, read_letters, set_state
from telemetry.errors import ArchiveError, BadEventError, EventsRefusedError
from telemetry.events import Event, decode
from telemetry.ids import rfc3339_ms
from telemetry.producer import Producer
from telemetry.wal.slot_inspection import spooled_lines

app = typer.Typer(
    help="List, retry and drop input that could not be archived.", no_args_is_help=False, rich_markup_mode=None
)

LetterIds = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="As `list` shows them.")]
All = Annotated[bool, typer.Option("--all", help="Every open letter.")]

_LOCK: Final = "deadletters.lock"
_SHIP_S: Final = 5.0
_REASON_LENGTH: Final = 60


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Also those that were retried or dropped.")] = False,  # noqa: FBT002 - typer reads it
    as_json: JsonOption = False,  # noqa: FBT002 - typer reads it
) -> int:
    """List the open dead letters, oldest first."""
    found = list(read_letters(_config().archive_dir, settled=every))
    if as_json:
        print(json.dumps([_as_json(letter) for letter in found], ensure_ascii=False))
    elif found:
        heading = ("id", "at", "producer", "entry", "seq", "tries", "state", "reason")
        print(table(heading, map(_row, found), left={0, 1, 2, 3, 6, 7}))
    else:
        print("No dead letters." if every else "No open dead letters.")
    return 0


@app.command()
def retry(ids: LetterIds = None, every: All = False, as_json: JsonOption = False) -> int:  # noqa: FBT002 - typer reads it
    """Read letters again, and accept their events as new events where they can be read."""
    config = _config()
    with _locked(config.archive_dir):
        letters = _selected(config.archive_dir, ids or [], every=every)
        retried, left, waiting = asyncio.run(_retry(config, letters)) if letters else ([], {}, 0)
    if as_json:
        print(json.dumps({"retried": retried, "left": left, "not_shipped": waiting}))
    else:
        print(f"{len(retried)} of {len(letters)} letters retried.")
        for letter_id, reason in left.items():
            print(f"{letter_id} stays: {reason}")
        if waiting:
            print(f"{waiting} events wait in the spool for Redis; the consumer job ships them.")
    return 1 if left else 0


@app.command()
def drop(ids: LetterIds = None, every: All = False, as_json: JsonOption = False) -> int:  # noqa: FBT002 - typer reads it
    """Mark letters as dropped; they are no longer listed, and not deleted."""
    root = _config().archive_dir
    with _locked(root):
        dropped = [letter.letter_id for letter in _selected(root, ids or [], every=every)]
        if dropped:
            set_state(root, dropped, "dropped", rfc3339_ms(time.time()))
    print(json.dumps({"dropped": dropped}) if as_json else f"{len(dropped)} letters dropped.")
    return 0


async def _retry(config: Config, letters: Sequence[DeadLetter]) -> tuple[list[str], dict[str, str], int]:
    """Retry letters; returns those retried, why others stay, and how many events are not shipped yet."""
    root, retried, left = config.archive_dir, list[str](), dict[str, str]()
    interrupted = [letter for letter in letters if letter.state == "retrying"]
    accepted_before = _accepted_before(config, interrupted) if interrupted else set()
    producer = Producer(
        config.spool_dir,
        None,
        config.producer,
        redis_stream(config, load_seal(config)),
        archive=installed_archive(config),
    )
    running = asyncio.create_task(producer.run())
    try:
        for letter in letters:
            now = rfc3339_ms(time.time())
            if letter.letter_id not in accepted_before:
                try:
                    events = _events(letter)
                    set_state(root, [letter.letter_id], "retrying", now)
                    await producer.accept(events)
                except (BadEventError, EventsRefusedError) as error:
                    left[letter.letter_id] = str(error)
                    continue
            set_state(root, [letter.letter_id], "retried", now)
            retried.append(letter.letter_id)
        waiting = await producer.drain(_SHIP_S)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        producer.close()
    return retried, left, waiting


def _events(letter: DeadLetter) -> list[Event]:
    events = [decode(line).event for line in letter.lines]
    if not events:
        raise BadEventError("It holds no line.")
    return events


def _accepted_before(config: Config, interrupted: Sequence[DeadLetter]) -> set[str]:
    """Return the letters whose events were accepted before their retry was interrupted."""
    letter_of: dict[tuple[str, str], str] = {}
    for letter in interrupted:
        # Its events were accepted together. An unreadable letter is reported when it is retried.
        with suppress(BadEventError):
            event = _events(letter)[0]
            letter_of[event.event_id, event.received_at] = letter.letter_id
    found = set()
    # The spool first: events that leave it meanwhile are in the archive.
    spooled = (line for _, line in spooled_lines(config.spool_dir))
    for line in (line for source in (spooled, read(config.archive_dir)) for line in source):
        fields = orjson.loads(line)
        found.add(letter_of.get((fields["event_id"], fields["received_at"])))
    return {letter_id for letter_id in found if letter_id is not None}


def _selected(root: Path, ids: Sequence[str], *, every: bool) -> list[DeadLetter]:
    if bool(ids) == every:
        raise UsageError("Name the letters, or use --all.")
    found = {letter.letter_id: letter for letter in read_letters(root)}
    unknown = [letter_id for letter_id in ids if letter_id not in found]
    if unknown:
        raise UsageError(f"There is no open dead letter {unknown[0]}; see: recollect deadletters list.")
    return list(found.values()) if every else [found[letter_id] for letter_id in dict.fromkeys(ids)]


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Exclude other processes that retry or drop letters."""
    if not root.is_dir():
        raise ArchiveError(f"There is no archive in {root}.")
    with try_lock(root / _LOCK) as locked:
        if not locked:
            raise ArchiveError(f"Another process retries or drops dead letters in {root}.")
        yield


def _row(letter: DeadLetter) -> list[str]:
    reason = letter.reason if len(letter.reason) <= _REASON_LENGTH else f"{letter.reason[: _REASON_LENGTH - 1]}…"
    seq = "all" if letter.seq is None else str(letter.seq)
    state = letter.state or "open"
    return [letter.letter_id, letter.at, letter.producer, letter.entry_id, seq, str(letter.tries), state, reason]


def _as_json(letter: DeadLetter) -> dict[str, object]:
    fields = {name: getattr(letter, name) for name in ("letter_id", "at", "producer", "entry_id", "first_seq", "seq")}
    data = letter.data.decode(errors="replace")
    return {**fields, "tries": letter.tries, "reason": letter.reason, "state": letter.state or "open", "data": data}


def _config() -> Config:
    return from_env(os.environ)
