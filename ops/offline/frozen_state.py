"""A copy of the live state and the item changes at one moment, from which a generation that was killed continues.

The files of a state snapshot never change, so that they are linked where the file system allows it. What was archived
since the snapshot is kept as lines of the archive.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from ops.offline.offline_model import first_day
from service.config import Config
from telemetry.errors import StateError
from telemetry.events import Feedback, Record, Served, decode, encode
from telemetry.ids import rfc3339_ms
from telemetry.live.archive_tail import read_tail
from telemetry.live.state_manifest import StateManifest
from telemetry.live.state_snapshot import StateSnapshot

_STATE: Final = "state"
_TAIL: Final = "tail.jsonl"
# The consumer may replace a file between the reading of the manifest and the copy.
_ATTEMPTS: Final = 5
_MS_PER_S: Final = 1000


def freeze(config: Config, directory: Path) -> None:
    """Copy the state of now into a new directory.

    Raises:
        StateError: The state snapshot is damaged.
        ArchiveError: The archive cannot be read.
        OSError: The copy cannot be written.
    """
    directory.mkdir(mode=0o700)
    for attempt in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            _copy_state(config.state_dir, directory / _STATE)
            break
        if attempt == _ATTEMPTS - 1:
            raise StateError(f"The state snapshot in {config.state_dir} changes while it is copied.")
    frozen = StateSnapshot.open(directory / _STATE)
    records = read_tail(config.archive_dir, frozen.manifest, first_day(frozen)) if frozen.stamp is not None else ()
    with (directory / _TAIL).open("xb") as file:
        for record in records:
            file.write(encode(record.event, record.producer, record.epoch, record.seq))


def thaw(directory: Path) -> tuple[StateSnapshot, Iterable[Record]]:
    """Return what `freeze` copied.

    Raises:
        StateError: The copy is damaged.
    """
    return StateSnapshot.open(directory / _STATE), _records(directory / _TAIL)


def frozen_times(directory: Path, user_ids: Iterable[str]) -> Iterator[str]:
    """Yield when each event of some users, by their ids in telemetry, was received of which there is a copy, RFC 3339.

    Raises:
        StateError: The copy is damaged.
        BadEventError: As well.
        OSError: It cannot be read.
    """
    names = frozenset(user_ids)
    with closing(StateSnapshot.open(directory / _STATE)) as snapshot:
        for name in sorted(names):
            yield from (rfc3339_ms(event.received_ms / _MS_PER_S) for event in snapshot.stored_events(name))
    if (directory / _TAIL).exists():
        for record in _records(directory / _TAIL):
            event = record.event
            if isinstance(event, Served | Feedback) and event.user_id in names:
                yield event.received_at


def live_user_ids(config: Config, snapshot: StateSnapshot) -> set[str]:
    """Return the users of the archive's feedback since the first day of a state, under their ids in telemetry.

    Raises:
        ArchiveError: The archive cannot be read.
    """
    if snapshot.stamp is None:
        return set()
    records = read_tail(config.archive_dir, None, first_day(snapshot))
    return {record.event.user_id for record in records if isinstance(record.event, Feedback)}


def _copy_state(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    manifest = StateManifest.read(source)
    if manifest is None:
        return
    names = [*manifest.layers, *(() if manifest.items is None else (manifest.items,))]
    for name in names:
        try:
            os.link(source / name, target / name)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one without links
            shutil.copyfile(source / name, target / name)
    manifest.write(target)


def _records(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for line in file:
            yield decode(line)
