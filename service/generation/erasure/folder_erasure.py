"""Erases users from a folder of generated lists.

Invariants:

- A file without the users stays as it is. Another one is written again beside it, synced and renamed, and then the
  manifest with it. Readers find each other user in one file at every moment.
- The new manifest is written aside before the file is renamed, so that a process that was killed anywhere is completed
  by the next one, and `verify` says until then that it is to be.
- The users erased are no longer in any file of the folder, nor in what a killed generation left there.
- A folder that is being made is left to its generation, which leaves erased users out at its end.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from service.errors import RunError, UsageError
from service.generation.erasure.chosen_users import Chosen
from service.generation.erasure.folder_search import folders_below
from service.generation.erasure.shard_erasure import UNREADABLE, LeftOver, users_named, write_without
from service.generation.files.output_folder import (
    FROZEN,
    MANIFEST,
    NEXT_MANIFEST,
    PROGRESS,
    FinishedShard,
    OutputFolder,
    digest_of,
    is_file,
    is_unfinished,
    read_manifest,
    staged_name,
)
from service.models.files import published_files
from telemetry.failpoints import Failpoints
from telemetry.ids import rfc3339_ms
from telemetry.wal.disk import sync_directory

_Found = dict[int, set[str]]
_WHY: Final = "users were erased"


@dataclass(frozen=True)
class ErasedLists:
    """What was done in some folders.

    Attributes:
        folders: Complete folders that were searched.
        unfinished: Folders that are being made, or were when their generation was killed.
        files: Files that were written again.
        lists: How many lists were removed, those without items, too.
    """

    folders: int = 0
    unfinished: int = 0
    files: int = 0
    lists: int = 0

    def __add__(self, other: "ErasedLists") -> "ErasedLists":
        return ErasedLists(
            self.folders + other.folders,
            self.unfinished + other.unfinished,
            self.files + other.files,
            self.lists + other.lists,
        )


def erase_from(path: Path, chosen: Chosen, failpoints: Failpoints) -> ErasedLists:
    """Erase users from a folder if it is complete.

    Args:
        path: The folder.
        chosen: Who is erased.
        failpoints: The active failpoints.

    Raises:
        RunError: A file may hold one of them and cannot be read, or is not that of the manifest; the others are done.
            Or the folder cannot be written.
        UsageError: Another process holds the folder.
    """
    manifest = read_manifest(path)
    if manifest is None:
        if is_unfinished(path):
            return ErasedLists(unfinished=1)
        manifest = read_manifest(path)
        if manifest is None:
            # Removed meanwhile, or never begun.
            return ErasedLists(unfinished=int((path / FROZEN).exists()))
    remains = (NEXT_MANIFEST, PROGRESS, FROZEN)
    found, unread = _search(path, manifest, chosen)
    unwritten: list[str] = []
    n_files = n_lists = 0
    if found or any((path / name).exists() for name in remains):
        with _age_kept(path), OutputFolder.held(path) as folder:
            _complete(path, failpoints)
            current = folder.manifest()
            if current is None:
                # Removed meanwhile: it is not made again. One that was begun anew is left to its generation.
                if any((path / name).exists() for name in remains):
                    return ErasedLists(unfinished=1)
                folder.discard()
                return ErasedLists()
            folder.remove_remains()
            if current != manifest:
                manifest = current
                found, unread = _search(path, manifest, chosen)
            for number, names in found.items():
                shard = FinishedShard(**manifest["shards"][number])
                file = path / shard.file
                if not is_file(file, shard):
                    unread.append(f"{file} is not the file of {MANIFEST}")
                    continue
                try:
                    left = write_without(file, path / staged_name(shard.file), manifest["inputs"]["layout"], names)
                except UNREADABLE as error:
                    # What pyarrow raises for damaged pages is an OSError without a number, whose text may have an id.
                    if isinstance(error, OSError) and error.errno is not None:
                        reason = error.strerror or type(error).__name__
                        unwritten.append(f"{file} cannot be written again: {reason}.")
                        continue
                    unread.append(f"{file} cannot be read, {type(error).__name__}")
                    continue
                manifest = _replaced(path, manifest, number, len(names), left, failpoints)
                n_files, n_lists = n_files + 1, n_lists + len(names)
    if unread:
        unwritten.append(f"These lists may hold an erased user and must be removed: {'; '.join(unread)}.")
    if unwritten:
        raise RunError(" ".join(unwritten))
    return ErasedLists(1, 0, n_files, n_lists)


@contextmanager
def _age_kept(path: Path) -> Iterator[None]:
    """Keep the time of a folder, by which old ones are removed, if it is there and belongs to this process's user."""
    before = None
    with suppress(FileNotFoundError):
        before = path.stat()
    try:
        yield
    finally:
        if before is not None:
            with suppress(FileNotFoundError, PermissionError):
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _search(path: Path, manifest: dict[str, Any], chosen: Chosen) -> tuple[_Found, list[str]]:
    """Return the users to erase by the place of their file in the manifest, and why some files cannot be searched."""
    found: _Found = {}
    unread = []
    for number, shard in enumerate(manifest["shards"]):
        file = path / shard["file"]
        try:
            if names := chosen(users_named(file), manifest["as_of"]):
                found[number] = names
        except FileNotFoundError:
            # The file was moved away or removed, so the folder has no user of it.
            continue
        except UNREADABLE as error:
            unread.append(f"{file} cannot be read, {type(error).__name__}")
    return found, unread


def _replaced(
    path: Path, manifest: dict[str, Any], number: int, n_users: int, left: LeftOver, failpoints: Failpoints
) -> dict[str, Any]:
    """Replace a file by the one beside it, without some users, and the manifest; returns the new one."""
    failpoints.hit("generated.written")
    shard = FinishedShard(**manifest["shards"][number])
    staged = path / staged_name(shard.file)
    try:
        changed = replace(
            shard,
            bytes=staged.stat().st_size,
            sha256=digest_of(staged),
            users=shard.users - n_users,
            users_sha256=left.users_sha256,
            users_without_items=shard.users_without_items - left.n_without,
            rows=left.n_rows,
        )
        shards = [*manifest["shards"]]
        shards[number] = asdict(changed)
        counts = {
            "users": manifest["users"] - n_users,
            "users_erased": manifest.get("users_erased", 0) + n_users,
            "rewritten": {"at": rfc3339_ms(time.time()), "why": _WHY},
        }
        after = {**manifest, **counts}
        # Last, for those who read it.
        after.pop("shards")
        after["shards"] = shards
        content = json.dumps(after, indent=2, ensure_ascii=False).encode() + b"\n"
        published_files.write(path / staged_name(MANIFEST), content)
        (path / staged_name(MANIFEST)).rename(path / NEXT_MANIFEST)
        sync_directory(path)
    except OSError as error:
        raise RunError(f"{path / shard.file} cannot be written again: {error.strerror or error}.") from None
    failpoints.hit("generated.planned")
    _complete(path, failpoints)
    failpoints.hit("generated.replaced")
    return after


def _complete(path: Path, failpoints: Failpoints) -> None:
    """Put the next manifest, if there is one, and the file that it was written for in the place of the old ones."""
    try:
        shards = json.loads((path / NEXT_MANIFEST).read_bytes())["shards"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path / NEXT_MANIFEST} cannot be read: {error}.") from None
    try:
        for shard in shards:
            staged = path / staged_name(shard["file"])
            if staged.exists() and is_file(staged, FinishedShard(**shard)):
                staged.replace(path / shard["file"])
        sync_directory(path)
        failpoints.hit("generated.renamed")
        (path / NEXT_MANIFEST).replace(path / MANIFEST)
        sync_directory(path)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}.") from None


def erase_below(root: Path, chosen: Chosen, failpoints: Failpoints) -> ErasedLists:
    """Erase users from every complete folder in a directory, as `erase_from` does.

    Raises:
        RunError: A folder was not searched or not done; the others are.
    """
    total = ErasedLists()
    reasons = []
    try:
        for path in folders_below(root):
            try:
                total += erase_from(path, chosen, failpoints)
            except (RunError, UsageError) as error:
                reasons.append(str(error))
            except (*UNREADABLE, KeyError, TypeError) as error:
                reasons.append(f"Users cannot be erased from {path}: {type(error).__name__}.")
    except RunError as error:
        reasons.append(str(error))
    if reasons:
        raise RunError(" ".join(reasons))
    return total
