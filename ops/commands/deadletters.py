"""`recollect deadletters`: what could not be archived, and what to do about it.

Invariant: a letter is retried once. It is marked as being retried before its events are accepted, and as retried once
they are on the disk; if that was interrupted, the next retry looks for its events in the spool and the archive first.
"""

import asyncio
import fcntl
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
from service.config import Config, from_env
from service.errors import UsageError
from service.preflight import installed_archive
from service.redis_access import load_seal, redis_stream
from telemetry.archive.archive_reader import read
from telemetry.archive.dead_letters import Letter, letters, settle
from telemetry.errors import ArchiveError, BadEventError, SpoolFull
from telemetry.events import Event, decode
from telemetry.ids import rfc3339_ms
from telemetry.producer import Producer
from telemetry.wal.slot_inspection import spooled_lines

app = typer.Typer(
    help="What could not be archived, kept with the reason.", no_args_is_help=False, rich_markup_mode=None
)

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="As `list` shows them.")]
All = Annotated[bool, typer.Option("--all", help="Every open letter.")]

_LOCK: Final = "deadletters.lock"
_SHIP_S: Final = 5.0
_SHOWN: Final = 60


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Also those that were retried or dropped.")] = False,  # noqa: FBT002 - typer reads it
    as_json: Json = False,  # noqa: FBT002 - typer reads it
) -> int:
    """List the open dead letters, oldest first."""
    found = list(letters(_config().archive_dir, settled=every))
    if as_json:
        print(json.dumps([_as_json(letter) for letter in found], ensure_ascii=False))
    elif found:
        heading = ("id", "at", "producer", "entry", "seq", "tries", "state", "reason")
        print(table(heading, map(_row, found), left={0, 1, 2, 3, 6, 7}))
    else:
        print("No dead letters." if every else "No open dead letters.")
    return 0


@app.command()
def retry(ids: Ids = None, every: All = False, as_json: Json = False) -> int:  # noqa: FBT002 - typer reads it
    """Read letters again, and give those that can be read to the pipeline as new events."""
    config = _config()
    with _alone(config.archive_dir):
        chosen = _chosen(config.archive_dir, ids or [], every=every)
        retried, left, waiting = asyncio.run(_retry(config, chosen)) if chosen else ([], {}, 0)
    if as_json:
        print(json.dumps({"retried": retried, "left": left, "not_shipped": waiting}))
    else:
        print(f"{len(retried)} of {len(chosen)} letters retried.")
        for letter_id, reason in left.items():
            print(f"{letter_id} stays: {reason}")
        if waiting:
            print(f"{waiting} events wait in the spool for Redis; the consumer job ships them.")
    return 1 if left else 0


@app.command()
def drop(ids: Ids = None, every: All = False, as_json: Json = False) -> int:  # noqa: FBT002 - typer reads it
    """Say that nothing can be done about letters; they are not listed any more, and not deleted."""
    root = _config().archive_dir
    with _alone(root):
        dropped = [letter.letter_id for letter in _chosen(root, ids or [], every=every)]
        if dropped:
            settle(root, dropped, "dropped", rfc3339_ms(time.time()))
    print(json.dumps({"dropped": dropped}) if as_json else f"{len(dropped)} letters dropped.")
    return 0


async def _retry(config: Config, chosen: Sequence[Letter]) -> tuple[list[str], dict[str, str], int]:
    """Retry letters; returns those retried, why others stay, and how many events are not shipped yet."""
    root, retried, left = config.archive_dir, list[str](), dict[str, str]()
    interrupted = [letter for letter in chosen if letter.settled == "retrying"]
    done = _already_there(config, interrupted) if interrupted else set()
    producer = Producer.open(
        config.spool_dir,
        None,
        config.producer,
        redis_stream(config, load_seal(config)),
        archive=installed_archive(config),
    )
    running = asyncio.create_task(producer.run())
    try:
        for letter in chosen:
            now = rfc3339_ms(time.time())
            if letter.letter_id not in done:
                try:
                    events = _events(letter)
                    settle(root, [letter.letter_id], "retrying", now)
                    await producer.accept(events)
                except (BadEventError, SpoolFull) as error:
                    left[letter.letter_id] = str(error)
                    continue
            settle(root, [letter.letter_id], "retried", now)
            retried.append(letter.letter_id)
        waiting = await producer.drain(_SHIP_S)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        producer.close()
    return retried, left, waiting


def _events(letter: Letter) -> list[Event]:
    events = [decode(line).event for line in letter.lines]
    if not events:
        raise BadEventError("it holds no line")
    return events


def _already_there(config: Config, interrupted: Sequence[Letter]) -> set[str]:
    """Tell which letters' events were accepted before their retry was interrupted."""
    wanted: dict[tuple[str, str], str] = {}
    for letter in interrupted:
        # Its events were accepted together. A letter that cannot be read any more says so when it is retried.
        with suppress(BadEventError):
            event = _events(letter)[0]
            wanted[event.event_id, event.received_at] = letter.letter_id
    found = set()
    # The spool first: what leaves it meanwhile has come into the archive.
    for line in (line for source in (_spool(config), read(config.archive_dir)) for line in source):
        fields = orjson.loads(line)
        found.add(wanted.get((fields["event_id"], fields["received_at"])))
    return {letter_id for letter_id in found if letter_id is not None}


def _spool(config: Config) -> Iterator[bytes]:
    for _, line in spooled_lines(config.spool_dir):
        yield line


def _chosen(root: Path, ids: Sequence[str], *, every: bool) -> list[Letter]:
    if bool(ids) == every:
        raise UsageError("name the letters, or say --all")
    found = {letter.letter_id: letter for letter in letters(root)}
    unknown = [letter_id for letter_id in ids if letter_id not in found]
    if unknown:
        raise UsageError(f"there is no open dead letter {unknown[0]}; see: recollect deadletters list")
    return list(found.values()) if every else [found[letter_id] for letter_id in dict.fromkeys(ids)]


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let one process at a time decide about letters."""
    if not root.is_dir():
        raise ArchiveError(f"there is no archive in {root}")
    lock_fd = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ArchiveError(f"somebody else is deciding about the dead letters in {root}") from None
    else:
        yield
    finally:
        os.close(lock_fd)


def _row(letter: Letter) -> list[str]:
    reason = letter.reason if len(letter.reason) <= _SHOWN else f"{letter.reason[: _SHOWN - 1]}…"
    seq = "all" if letter.seq is None else str(letter.seq)
    state = letter.settled or "open"
    return [letter.letter_id, letter.at, letter.producer, letter.entry_id, seq, str(letter.tries), state, reason]


def _as_json(letter: Letter) -> dict[str, object]:
    fields = {name: getattr(letter, name) for name in ("letter_id", "at", "producer", "entry_id", "first_seq", "seq")}
    data = letter.data.decode(errors="replace")
    return {**fields, "tries": letter.tries, "reason": letter.reason, "state": letter.settled or "open", "data": data}


def _config() -> Config:
    return from_env(os.environ)
