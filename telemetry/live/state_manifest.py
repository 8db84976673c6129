"""The manifest of the state snapshot: which files it consists of, and what it includes.

Invariant: the files that a manifest names are complete before it replaces the previous one, in one rename, and are
removed only after a manifest without them is in place. Its second line is the CRC-32 of the first.
"""

import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson

from telemetry.batch import Position
from telemetry.errors import StateError
from telemetry.wal.disk import sync_directory

FILE_NAME: Final = "snapshot.json"
FORMAT: Final = 1

Stamp: TypeAlias = tuple[int, int, int]
"""What differs between two manifests of a directory."""


@dataclass(frozen=True, slots=True)
class StateManifest:
    """The content of a manifest.

    Attributes:
        archive: The identity of the archive that the state was made from.
        position: The feed entry up to which the snapshot includes everything, as (generation, number).
        marks: By producer: the position up to which the snapshot includes the archived events.
        since_ms: The horizon: Unix time in milliseconds before which no event is in any state.
        days: The setting from which the horizon follows, at the earliest.
        most_events: How many events a user has at most.
        types: The types of feedback that are live, sorted.
        layers: The names of the files of events.
        items: The name of the file of items; None without one.
        erased: By digest of users to be removed from the layers: Unix time in milliseconds of the request.
        part: The name that the archive's parts had; earlier parts are included.
        lengths: By path of the archive's files with that name: how many of its bytes are included.
        compacted: The paths of compacted files that are included.
    """

    archive: str
    position: Position
    marks: Mapping[str, Position]
    since_ms: int
    days: int
    most_events: int
    types: tuple[str, ...]
    layers: tuple[str, ...] = ()
    items: str | None = None
    erased: Mapping[str, int] = field(default_factory=dict)
    part: str = ""
    lengths: Mapping[str, int] = field(default_factory=dict)
    compacted: tuple[str, ...] = ()

    def write(self, directory: Path) -> Stamp:
        """Replace the manifest of a directory; returns its stamp. Raises OSError."""
        positions = {
            "position": list(self.position),
            "marks": {producer: list(mark) for producer, mark in self.marks.items()},
        }
        body = orjson.dumps({"format": FORMAT, **asdict(self), **positions})
        staged = directory / f".{FILE_NAME}.staged"
        with staged.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(b"%b\n%08x\n" % (body, zlib.crc32(body)))
            file.flush()
            os.fsync(file.fileno())
            # Another consumer may replace the file as soon as it has its name.
            stamp = _stamp(os.fstat(file.fileno()))
        staged.rename(directory / FILE_NAME)
        sync_directory(directory)
        return stamp

    @classmethod
    def read(cls, directory: Path) -> "StateManifest | None":
        """Read the manifest of a directory; None if there is none.

        Raises:
            StateError: It is damaged or of another version.
        """
        path = directory / FILE_NAME
        try:
            body, _, checksum = path.read_bytes().rstrip(b"\n").partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"{path} cannot be read: {error.strerror}.") from None
        if checksum != b"%08x" % zlib.crc32(body):
            raise StateError(f"{path} is damaged: it does not have its checksum.")
        fields: dict[str, Any] = orjson.loads(body)
        if fields.pop("format") != FORMAT:
            raise StateError(f"{path} is of another format. This version reads {FORMAT}.")
        fields["position"] = Position(*fields["position"])
        fields["marks"] = {producer: Position(*mark) for producer, mark in fields["marks"].items()}
        for name in ("types", "layers", "compacted"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


def stamp_of(directory: Path) -> Stamp | None:
    """Return the stamp of the manifest in a directory; None without one."""
    try:
        return _stamp((directory / FILE_NAME).stat())
    except OSError:
        return None


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_mtime_ns, status.st_size
