"""A folder of generated lists, without a model."""

from collections.abc import Sequence
from pathlib import Path

from service.generation.files.output_folder import OutputFolder
from service.generation.files.shard_file import shard_file
from service.generation.lists.shard_lists import ShardLists
from service.models.vocabulary import Vocabulary
from telemetry.live.live_event import unix_ms


def generated_lists(path: Path, users: Sequence[str], as_of: str) -> Path:
    """Make a complete folder with a list of one item of each user, in one file."""
    lists = ShardLists.empty(len(users), 1)
    lists.rows[:], lists.scores[:], lists.counts[:] = 0, 1.0, 1
    inputs = {"model": "m", "n": 1, "layout": "rows"}
    with OutputFolder.held(path) as folder:
        folder.begin({"inputs": inputs, "as_of_ms": unix_ms(as_of)})
        folder.add(0, shard_file(users, lists, Vocabulary(["i"]), "rows"), "")
        folder.finish({"inputs": inputs, "as_of": as_of, "users": len(users)})
    return path
