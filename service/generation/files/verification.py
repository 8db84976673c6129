"""Checks a folder of generated lists against its manifest, from the files alone."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from service.errors import RunError
from service.generation.files.output_folder import (
    MANIFEST,
    NEXT_MANIFEST,
    SUFFIX,
    FinishedShard,
    is_file,
    read_manifest,
)

STAGE: Final = "verify"
_KEY_BYTES: Final = 8


def verify(folder: Path, progress: Callable[[str, int, int], None]) -> dict[str, int]:
    """Check that every file is the one of the manifest, and that every user of it has one list.

    Returns:
        The numbers of `shards`, `users` and `rows`.

    Raises:
        RunError: There is no manifest, the files differ from it, or an erasure is to be completed.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise RunError(f"{folder} has no {MANIFEST}: it holds no lists, or they are not complete.")
    if (folder / NEXT_MANIFEST).exists():
        raise RunError(
            f"An erasure of users from {folder} goes on or was interrupted; `recollect generate erase {folder}` "
            "completes it."
        )
    shards = [FinishedShard(**shard) for shard in manifest["shards"]]
    others = {path.name for path in folder.glob(f"*{SUFFIX}")} - {shard.file for shard in shards}
    if others:
        raise RunError(f"{folder} holds {min(others)}, which is not in {MANIFEST}.")
    keys = []
    for number, shard in enumerate(shards):
        progress(STAGE, number, len(shards))
        path = folder / shard.file
        if not is_file(path, shard):
            raise RunError(f"{path} is missing, or is not the file of {MANIFEST}.")
        users = _checked_users(path, shard, manifest["inputs"])
        keys.append(np.array([_key(user_id) for user_id in users], np.uint64))
    progress(STAGE, len(shards), len(shards))
    all_keys = np.concatenate(keys)
    if np.unique(all_keys).size != all_keys.size:
        raise RunError(f"{_repeated(folder, shards, all_keys)} is twice in {folder}.")
    n_users = sum(shard.users for shard in shards)
    if n_users != manifest["users"]:
        raise RunError(f"{folder} has {n_users} users, and {MANIFEST} says {manifest['users']}.")
    return {"shards": len(shards), "users": n_users, "rows": sum(shard.rows for shard in shards)}


def users_of(path: Path) -> list[str]:
    """Return the users of a file, each as often as its lists are there, in their order."""
    with parquet.ParquetFile(path) as file:
        groups = [_lists_of(file.read_row_group(group)) for group in range(file.num_row_groups)]
    return [user_id for users, _ in groups for user_id in users]


def _checked_users(path: Path, shard: FinishedShard, inputs: dict[str, Any]) -> list[str]:
    """Return the users of a shard who have a list in its file.

    Raises:
        RunError: A list is damaged, or the numbers are not those of the manifest.
    """
    users: list[str] = []
    n_rows = 0
    with parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            found, lengths = _lists_of(table)
            users += found
            n_rows += int(lengths.sum())
            if lengths.size and int(lengths.max()) > inputs["n"]:
                raise RunError(f"{path} has a list of more than {inputs['n']} items.")
            _check_items(path, table, lengths)
    n_without = shard.users_without_items if inputs["layout"] == "rows" else 0
    if len(users) != shard.users - n_without or n_rows != shard.rows or len(set(users)) != len(users):
        raise RunError(f"{path} has {len(set(users))} users with {n_rows} items, and {MANIFEST} says otherwise.")
    if not n_without and _digest(users) != shard.users_sha256:
        raise RunError(f"{path} has other users than {MANIFEST} says.")
    return users


def _lists_of(table: pa.Table) -> tuple[list[str], Any]:
    """Return the users of a row group, one for each list, and the lengths of the lists, int64."""
    if "items" in table.column_names:
        lengths = pc.list_value_length(table["items"]).to_numpy().astype(np.int64)
        return table["user_id"].to_pylist(), lengths
    # A list begins with rank 1.
    starts = np.flatnonzero(table["rank"].to_numpy() == 1)
    return table["user_id"].take(pa.array(starts)).to_pylist(), np.diff(np.append(starts, table.num_rows))


def _check_items(path: Path, table: pa.Table, lengths: Any) -> None:
    """Refuse lists that name an item twice, or whose ranks or users are out of order."""
    lists = np.repeat(np.arange(lengths.size), lengths)
    if "items" in table.column_names:
        items = pc.struct_field(pc.list_flatten(table["items"]), "item_id")
    else:
        items = table["item_id"]
        expected = np.arange(lists.size) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
        users = pc.rank(table["user_id"], tiebreaker="dense").to_numpy() if table.num_rows else lists
        is_same = users[1:] == users[:-1]
        if not np.array_equal(table["rank"].to_numpy(), expected) or not np.array_equal(is_same, np.diff(lists) == 0):
            raise RunError(f"{path} has a list with a rank or a user out of order.")
    codes = items.combine_chunks().dictionary_encode() if isinstance(items, pa.ChunkedArray) else items
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    pairs = lists * np.int64(max(1, len(codes.dictionary))) + codes.indices.to_numpy()
    if np.unique(pairs).size != pairs.size:
        raise RunError(f"{path} has a list that names an item twice.")


def _key(user_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(user_id.encode(), digest_size=_KEY_BYTES).digest())


def _digest(users: list[str]) -> str:
    return hashlib.sha256("".join(f"{user_id}\n" for user_id in users).encode()).hexdigest()


def _repeated(folder: Path, shards: list[FinishedShard], keys: Any) -> str:
    """Return a user who is there more than once, as far as digests can tell."""
    unique, counts = np.unique(keys, return_counts=True)
    wanted = int(unique[counts > 1][0])
    return next(user for user in _users(folder, shards) if _key(user) == wanted)


def _users(folder: Path, shards: list[FinishedShard]) -> Iterator[str]:
    for shard in shards:
        yield from users_of(folder / shard.file)
