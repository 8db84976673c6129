"""The folder of a generation: a file for each shard, and a manifest once all are there.

Invariants:

- A shard's file is complete: it is written aside, synced and renamed.
- `manifest.json` is there only when all shards are. Until then `progress.jsonl` has the inputs in its first line, and
  each finished shard, with the digest of its file, in a line of its own. So a generation that was killed goes on.
- One process at a time writes.
- A folder becomes complete while the lock of `completing` is held: who holds it and sees no manifest knows that the
  list of erased users will be read again before there is one.
- A folder of something else stays as it is: nothing is written into it or removed from it.

Names that begin with a point are no result: readers of whole folders pass them over.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from service.errors import RunError, UsageError
from service.models.files import published_files
from telemetry.wal.disk import sync_directory

# A search for users in folders needs neither numba nor the libraries of models.
if TYPE_CHECKING:
    from service.generation.files.shard_file import ShardFile

MANIFEST: Final = "manifest.json"
# A manifest that an erase is about to put in the place of the other one.
NEXT_MANIFEST: Final = ".manifest.json.next"
PROGRESS: Final = "progress.jsonl"
SUFFIX: Final = ".parquet"
_LOCK: Final = ".lock"
FROZEN: Final = ".frozen"
# What `published_files.replace` leaves of a file here when the process is killed.
STAGED: Final = re.compile(r"\.(?:shard-\d+\.parquet|progress\.jsonl|manifest\.json)\.[0-9a-f]+\.tmp")
_FORMAT: Final = 1


@dataclass(frozen=True)
class FinishedShard:
    """A shard whose file is there.

    Attributes:
        shard: Its number.
        file: The file's name.
        bytes: The file's size.
        sha256: That of the file.
        users: The users of the shard.
        users_sha256: That of their ids in their order, each with a line feed.
        users_without_items: Those with an empty list.
        rows: The items of all lists.
    """

    shard: int
    file: str
    bytes: int
    sha256: str
    users: int
    users_sha256: str
    users_without_items: int
    rows: int


class OutputFolder:
    """A folder that this process writes; use `held`.

    Attributes:
        path: The folder.
        finished: By number: the shards that are there.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.finished: dict[int, FinishedShard] = {}

    def __repr__(self) -> str:
        return f"<OutputFolder {self.path} {len(self.finished)} shards>"

    @classmethod
    @contextmanager
    def held(cls, path: Path) -> Iterator["OutputFolder"]:
        """Make a folder if there is none, and hold it.

        Raises:
            UsageError: Another process holds it, or it holds something else.
            RunError: It cannot be written.
        """
        with _writing(path):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            _require_own(path)
            is_new = not (path / _LOCK).exists()
            file = (path / _LOCK).open("ab")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A process that was refused may have removed it in between.
                is_held = os.path.samestat(os.fstat(file.fileno()), (path / _LOCK).stat())
            except (BlockingIOError, FileNotFoundError):
                is_held = False
            if not is_held:
                raise UsageError(f"Another process generates lists in {path}.")
            try:
                yield cls(path)
            except (UsageError, RunError):
                # A folder that was refused is left as it was; one that was begun does without this file.
                if is_new:
                    (path / _LOCK).unlink(missing_ok=True)
                raise

    @property
    def frozen(self) -> Path:
        """Where the state that lists are made from is kept until the last one is made."""
        return self.path / FROZEN

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest of a complete generation; None without one.

        Raises:
            RunError: It cannot be read.
        """
        return read_manifest(self.path)

    def begun(self) -> dict[str, Any] | None:
        """Return what `begin` wrote into the folder, and take the shards that are there; None of a new folder.

        A shard whose file is missing or differs from its digest is not taken.

        Raises:
            UsageError: The folder holds something else.
        """
        try:
            lines = (self.path / PROGRESS).read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            _require_own(self.path)
            self._remove_staged()
            return None
        try:
            # The last line of a killed process may be a part of one.
            begun, *entries = (json.loads(line) for line in lines if line.endswith(b"\n"))
            shards = [FinishedShard(**entry) for entry in entries]
            is_known = _is_begun(begun)
        except (ValueError, TypeError):
            is_known = False
        if not is_known:
            raise UsageError(f"{self.path / PROGRESS} is damaged, or of another version: remove it with its folder.")
        self._remove_staged()
        self.finished = {shard.shard: shard for shard in shards if is_file(self.path / shard.file, shard)}
        found: dict[str, Any] = begun
        return found

    def peek(self) -> dict[str, Any] | None:
        """Return what `begin` wrote into a folder that is not complete, and change nothing; None if it did not."""
        if (self.path / MANIFEST).exists():
            return None
        try:
            with (self.path / PROGRESS).open("rb") as file:
                begun = json.loads(file.readline())
        except (OSError, ValueError):
            return None
        return begun if _is_begun(begun) else None

    def remove_remains(self) -> None:
        """Remove what a process that was killed left in a complete folder; it may hold users."""
        self._remove_staged()
        with _writing(self.path):
            with suppress(FileNotFoundError):
                shutil.rmtree(self.frozen)
            (self.path / PROGRESS).unlink(missing_ok=True)

    def _remove_staged(self) -> None:
        with _writing(self.path):
            for path in self.path.iterdir():
                if _is_staged(path):
                    path.unlink()

    def clear(self) -> None:
        """Remove the shards and what served to continue."""
        with _writing(self.path):
            for path in [*self.path.glob(f"shard-*{SUFFIX}"), self.path / PROGRESS]:
                path.unlink(missing_ok=True)
            shutil.rmtree(self.frozen, ignore_errors=True)
        self.finished.clear()

    def discard(self) -> None:
        """Remove what was prepared, before `begin`; the folder goes, too, if nothing else is in it."""
        shutil.rmtree(self.frozen, ignore_errors=True)
        with suppress(OSError):
            (self.path / _LOCK).unlink()
            self.path.rmdir()

    def begin(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write what the lists are made from, before the first shard; returns it."""
        begun = {"format": _FORMAT, **facts}
        with _writing(self.path):
            published_files.replace(self.path / PROGRESS, json.dumps(begun, ensure_ascii=False).encode() + b"\n")
        return begun

    def add(self, number: int, made: "ShardFile", users_sha256: str) -> None:
        """Write the file of a shard, and record it."""
        name = f"shard-{number:05d}{SUFFIX}"
        content = made.content.data
        shard = FinishedShard(
            number,
            name,
            content.nbytes,
            hashlib.sha256(content).hexdigest(),
            made.n_users,
            users_sha256,
            made.n_without,
            made.n_rows,
        )
        with _writing(self.path):
            published_files.replace(self.path / name, content)
            _append_line(self.path / PROGRESS, json.dumps(asdict(shard)).encode() + b"\n")
        self.finished[number] = shard

    @contextmanager
    def completing(self) -> Iterator[None]:
        """Hold the lock under which a folder becomes complete, see `is_unfinished`."""
        with _writing(self.path):
            file = (self.path / PROGRESS).open("rb+")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def finish(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Write the manifest, with the shards in their order, and remove what served to continue; returns it."""
        shards = [asdict(self.finished[number]) for number in sorted(self.finished)]
        complete = {"format": _FORMAT, **manifest, "shards": shards}
        content = json.dumps(complete, indent=2, ensure_ascii=False).encode() + b"\n"
        with _writing(self.path):
            published_files.replace(self.path / MANIFEST, content)
            shutil.rmtree(self.frozen, ignore_errors=True)
            (self.path / PROGRESS).unlink(missing_ok=True)
            sync_directory(self.path)
        return complete


def is_unfinished(path: Path) -> bool:
    """Whether a generation was begun in a folder whose end will read the list of erased users after this call.

    Raises:
        RunError: It is being completed at this moment, or its record cannot be read.
    """
    while True:
        try:
            with (path / PROGRESS).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if (path / MANIFEST).exists():
                    return False
                # It may have been begun anew in between.
                if os.path.samestat(os.fstat(file.fileno()), (path / PROGRESS).stat()):
                    return True
        except FileNotFoundError:
            if not (path / PROGRESS).exists():
                return False
        except BlockingIOError:
            raise RunError(f"The lists in {path} are being completed.") from None
        except OSError as error:
            raise RunError(f"{path / PROGRESS} cannot be read: {error.strerror}.") from None


def is_held(path: Path) -> bool:
    """Whether a process writes a folder at this moment, as far as this one can see."""
    with suppress(FileNotFoundError, PermissionError), (path / _LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest in a folder; None without one.

    Raises:
        RunError: It cannot be read, or is of another version.
    """
    try:
        found = json.loads((path / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path / MANIFEST} cannot be read: {error}.") from None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise RunError(f"{path / MANIFEST} is not of format {_FORMAT}.")
    manifest: dict[str, Any] = found
    return manifest


def is_file(path: Path, shard: FinishedShard) -> bool:
    """Whether a file has the size and the digest of a shard."""
    try:
        if path.stat().st_size != shard.bytes:
            return False
        return digest_of(path) == shard.sha256
    except OSError:
        return False


def digest_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def staged_name(name: str) -> str:
    """Return the name under which a file is written aside by a process that its successor completes."""
    return f".{name}.0.tmp"


def _require_own(path: Path) -> None:
    """Refuse a folder that holds files, and no generation that was begun or completed."""
    if (path / PROGRESS).exists() or (path / MANIFEST).exists():
        return
    others = sorted(one.name for one in path.iterdir() if one.name not in (_LOCK, FROZEN) and not _is_staged(one))
    if others:
        raise UsageError(f"{path} holds {others[0]}: name a new or an empty folder.")


def _is_staged(path: Path) -> bool:
    return STAGED.fullmatch(path.name) is not None and path.is_file()


def _is_begun(value: Any) -> bool:
    """Whether a value is what `begin` writes in this version."""
    if not isinstance(value, dict) or value.get("format") != _FORMAT or not isinstance(value.get("inputs"), dict):
        return False
    return isinstance(value["inputs"].get("model"), str) and isinstance(value.get("as_of_ms"), int)


def _append_line(path: Path, line: bytes) -> None:
    """Append a line and sync it, in place of what a killed process wrote of one."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end and os.pread(file.fileno(), 1, end - 1) != b"\n":
            end -= 1
        file.truncate(end)
        file.seek(end)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{error.filename or path} cannot be written: {error.strerror or error}.") from None
