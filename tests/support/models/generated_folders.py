"""Small folders of generated lists."""

import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np

from service.generation import generation
from service.generation.files.output_folder import OutputFolder
from service.generation.files.shard_format import Layout
from service.generation.shard_source import ShardSource

N_USERS = 47
# The second of them has seen all that there is to list.
ERASED = ("u3", "u13", "u14", "u46")
AS_OF = "2026-11-21T12:00:00.500Z"
AS_OF_S = 1_795_262_400


def generate(path: Path, source: ShardSource, layout: Layout, left_out: Collection[str] = ()) -> Path:
    """Make a complete folder without some users."""
    is_out = np.isin(source.users.ids, list(left_out))
    inputs = {"model": "m", "n": 5, "layout": layout}
    with OutputFolder.held(path) as folder:
        folder.begin({"inputs": inputs, "as_of_ms": AS_OF_S * 1000 + 500})
        generation.generate(folder, source, layout, lambda: is_out, lambda *_: None)
        n_out = len(left_out)
        folder.finish({"inputs": inputs, "as_of": AS_OF, "users": N_USERS - n_out, "users_erased": n_out})
    return path


def copy_of(folder: Path, path: Path) -> Path:
    return Path(shutil.copytree(folder, path))


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.glob("*.parquet"))}
