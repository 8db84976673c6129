"""A sealed file without some users' lines.

Invariants:

- The old file is only read. The new one is written beside it, synced, and means nothing until the catalogue says
  so; until then a crash leaves a file that the next holder of the lease removes.
- The new file's name holds the lease and is used once, so that a holder that has lost it can write to no file of
  its successor's.
- Every line that is not left out is copied as it is, in its order.

Which lines: those whose decoded `user_id` is one of the users and that were received no later than the user's erase
was requested. A dead letter goes if any line in it is such a one; what in it cannot be decoded belongs to a user
if their id stands in it as JSON would have it.
"""

import fcntl
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from telemetry.archive.archive_files import DEAD_LETTERS, REWRITTEN, written_by
from telemetry.archive.dead_letters import parse
from telemetry.catalogue.catalogue_file import ask
from telemetry.catalogue.commit import ErasureRequest, FileLength, runs_of
from telemetry.erasure.erasure_requests import Replacement
from telemetry.errors import ArchiveError
from telemetry.wal.disk import sync_directory

_CHUNK_BYTES: Final = 1024 * 1024
_WRITE_BYTES: Final = 256 * 1024
_PARQUET: Final = ".parquet"
# Held by a compaction (telemetry/archive/compaction.py) while it is at work.
_COMPACT_LOCK: Final = "compact.lock"
# Whose a line is, as JSON would have it.
_USER: Final = re.compile(rb'"user_id"\s*:\s*("(?:[^"\\]|\\.)*")')
_NAME: Final = re.compile(rf"(?:{re.escape(REWRITTEN)}\d+-(\d+))?(\.[a-z]+)$")

_Place = tuple[str, int, int, str | None]


class LineMatcher:
    """Whom to leave out, however many: what it costs to look at a line does not depend on their number.

    Args:
        erasures: What was asked for; a user may be asked about more than once.
    """

    def __init__(self, erasures: Iterable[ErasureRequest]) -> None:
        self._last: dict[str, ErasureRequest] = {}
        for erasure in erasures:
            other = self._last.get(erasure.user_id)
            if other is None or other.requested_at < erasure.requested_at:
                self._last[erasure.user_id] = erasure
        # As it stands in a line. A line of ours has no other spelling of it, and a backslash gives a foreign one away.
        self._spelled = {orjson.dumps(user_id): erasure for user_id, erasure in self._last.items()}

    @property
    def requested(self) -> dict[str, str]:
        """By user: when the last erase was requested."""
        return {user_id: erasure.requested_at for user_id, erasure in self._last.items()}

    def may_be_in(self, data: bytes) -> bool:
        """Tell quickly whether some line in here may be one of theirs."""
        return b"\\" in data or not self._spelled.keys().isdisjoint(_USER.findall(data))

    def of(self, line: bytes) -> ErasureRequest | None:
        """Tell whose a line is: the erase that it falls under, or None."""
        if not self.may_be_in(line):
            return None
        try:
            fields: dict[str, Any] = orjson.loads(line)
            erasure = self._last.get(fields["user_id"])
            return erasure if erasure is not None and fields["received_at"] <= erasure.requested_at else None
        except (ValueError, TypeError, KeyError):
            return None

    def of_remains(self, data: bytes) -> ErasureRequest | None:
        """Tell whose a dead letter is, by any line in it, or by what of a line can be recognised."""
        for line in data.splitlines(keepends=True):
            try:
                orjson.loads(line)
            except ValueError:
                for spelled in _USER.findall(line):
                    if (erasure := self._spelled.get(spelled)) is not None:
                        return erasure
            else:
                if (found := self.of(line)) is not None:
                    return found
        return None


@dataclass(slots=True)
class _LeftOut:
    places: list[_Place] = field(default_factory=list)
    erased: Counter[str] = field(default_factory=Counter)

    def note(self, erasure: ErasureRequest, places: Iterable[_Place]) -> None:
        self.places.extend(places)
        self.erased[erasure.erase_id] += 1


def rewrite(root: Path, lease_epoch: int, path: str, length: FileLength, users: LineMatcher) -> Replacement | None:
    """Write a sealed file anew without some users' lines.

    Args:
        root: The archive's directory.
        lease_epoch: Our lease.
        path: The file, relative to it.
        length: Its committed length.
        users: Whom to leave out.

    Returns:
        What to put in its place, or None if there is nothing of them in it.

    Raises:
        ArchiveError: A file cannot be read or written.
    """
    letters = path.startswith(f"{DEAD_LETTERS}/")
    left_out = _LeftOut()
    try:
        # Looked through first, so that nothing is written for users who are not in it.
        if not holds(root, path, length, users):
            return None
        choose = _kept_letters if letters else _kept_events
        kept = choose(_lines(root / path, length.size_bytes), users, left_out)
        new_path = _next_name(path, lease_epoch)
        new = _write(root / new_path, kept)
    except OSError as error:
        raise ArchiveError(f"{root / path} cannot be rewritten: {error.strerror}") from None
    if not left_out.erased:
        (root / new_path).unlink()
        return None
    removed = runs_of(left_out.places, "erased")
    return Replacement((path, length), (new_path, new), removed, letters, dict(left_out.erased))


def holds(root: Path, path: str, length: FileLength, users: LineMatcher) -> bool:
    """Tell whether a file has a line that is to be left out; writes nothing.

    Args:
        root: The archive's directory.
        path: The file, relative to it; it may be one that still grows.
        length: Its committed length.
        users: Whom to leave out.

    Raises:
        ArchiveError: The file cannot be read.
    """
    full = root / path
    try:
        if path.endswith(_PARQUET):
            from telemetry.archive.parquet_file import holds_any

            return holds_any(full, users.requested)
        if path.startswith(f"{DEAD_LETTERS}/"):
            # They hold lines within a string, or in base64; they are few, so that each is looked into.
            return any(_of_letter(line, users) is not None for line in _lines(full, length.size_bytes))
        return any(
            users.may_be_in(block) and any(users.of(line) is not None for line in block.splitlines())
            for block in _blocks(full, length.size_bytes)
        )
    except OSError as error:
        raise ArchiveError(f"{full} cannot be read: {error.strerror}") from None


def sweep(root: Path, lease_epoch: int, part: str) -> bool:
    """Remove files that hold lines and do not count: what a crash left of a rewriting or a compaction.

    Args:
        root: The archive's directory.
        lease_epoch: Our lease; files that were written under a later one are left alone.
        part: What our parts are called now; those, and later ones, are left alone.

    Returns:
        Whether it was done; not while a compaction runs, whose file does not count yet.

    Raises:
        ArchiveError: The catalogue or a directory cannot be read, or a file not be removed.
    """
    try:
        lock_fd = os.open(root / _COMPACT_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            known = {path for (path,) in ask(root, "SELECT path FROM files")}
            for file in [*root.glob("date=*/*"), *root.glob(f"{DEAD_LETTERS}/*")]:
                growing = file.name.startswith("part-") and file.name >= part
                newer = (written_by(file.name) or 0) > lease_epoch
                if not (growing or newer or str(file.relative_to(root)) in known):
                    file.unlink()
                    sync_directory(file.parent)
            return True
        finally:
            os.close(lock_fd)
    except OSError as error:
        raise ArchiveError(f"the archive in {root} cannot be swept: {error.strerror}") from None


def _kept_events(lines: Iterable[bytes], users: LineMatcher, left_out: _LeftOut) -> Iterator[bytes]:
    for line in lines:
        erasure = users.of(line)
        if erasure is None:
            yield line
            continue
        fields = orjson.loads(line)
        left_out.note(erasure, [(fields["producer"], fields["epoch"], fields["seq"], fields["received_at"])])


def _kept_letters(lines: Iterable[bytes], users: LineMatcher, left_out: _LeftOut) -> Iterator[bytes]:
    for line in lines:
        erasure = _of_letter(line, users)
        if erasure is None:
            yield line
            continue
        try:
            letter = parse(line)
        except ArchiveError:
            # A letter that is damaged itself has no place any more.
            left_out.note(erasure, [])
        else:
            epoch, numbers = letter.numbers
            left_out.note(erasure, [(letter.producer, epoch, number, None) for number in numbers])


def _of_letter(line: bytes, users: LineMatcher) -> ErasureRequest | None:
    try:
        return users.of_remains(parse(line).data)
    except ArchiveError:
        return users.of_remains(line)


def _blocks(path: Path, size_bytes: int) -> Iterator[bytes]:
    """Read whole lines, many at once."""
    with path.open("rb", buffering=0) as file:
        tail = b""
        while size_bytes > 0 and (chunk := file.read(min(_CHUNK_BYTES, size_bytes))):
            size_bytes -= len(chunk)
            lines, end, rest = chunk.rpartition(b"\n")
            if end:
                yield tail + lines + end
                tail = rest
            else:
                tail += rest
        if tail:
            yield tail


def _lines(path: Path, size_bytes: int) -> Iterator[bytes]:
    if path.suffix == _PARQUET:
        from telemetry.archive.parquet_file import read_lines

        yield from read_lines(path)
        return
    with path.open("rb") as file:
        while size_bytes > 0 and (line := file.readline()):
            size_bytes -= len(line)
            yield line


def _write(path: Path, lines: Iterator[bytes]) -> FileLength:
    if path.suffix == _PARQUET:
        from telemetry.archive.parquet_file import write_lines

        count = write_lines(path, lines)
        sync_directory(path.parent)
        return FileLength(path.stat().st_size, count)
    count = 0
    # What an attempt of ours left there means nothing.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb", buffering=_WRITE_BYTES) as file:
        for line in lines:
            file.write(line)
            count += 1
        file.flush()
        os.fsync(file.fileno())
        size_bytes = file.tell()
    sync_directory(path.parent)
    return FileLength(size_bytes, count)


def _next_name(path: str, lease_epoch: int) -> str:
    """Name the file that takes another's place, close to where the other one sorts."""
    match = _NAME.search(path)
    if match is None:
        raise ArchiveError(f"{path} has no name of an archive's file")
    times = int(match[1] or 0) + 1
    return f"{path[: match.start()]}{REWRITTEN}{lease_epoch:08d}-{times}{match[2]}"
