"""A generation: the shards that are missing in its folder, by the workers of the command or in this process.

Invariant: every user has one list in one file, whatever died meanwhile: a shard's users follow from its number, only
this process writes files, and a shard is made again until its file is recorded. The lists do not depend on workers.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from service.executors.executor import executor_in_use
from service.generation.output_folder import OutputFolder
from service.generation.shard import make_shard
from service.generation.shard_file import Layout, ShardFile
from service.generation.shard_source import ShardSource, ShardTasks

STAGE = "generate"
Progress = Callable[[str, int, int], None]


def generate(
    folder: OutputFolder,
    source: ShardSource,
    layout: Layout,
    erased: Callable[[], NDArray[np.bool_]],
    progress: Progress,
) -> None:
    """Make the missing shards of a folder.

    Args:
        folder: Where they go.
        source: What they are made of.
        layout: Of the files.
        erased: Returns the users who are erased by now, bool (n_users,). Shards are made again without those who were
            erased while the others were made.
        progress: Called with the stage, the finished shards and all of them.
    """
    source.left_out = erased()
    while missing := _missing(folder, source):
        n_before = len(source) - len(missing)
        progress(STAGE, n_before, len(source))
        for n_done, (number, made) in enumerate(_made(source, missing, layout), n_before + 1):
            folder.add(number, made, source.users_sha256(number))
            progress(STAGE, n_done, len(source))
        source.left_out = erased()


def _missing(folder: OutputFolder, source: ShardSource) -> list[int]:
    """Return the shards that are not there with the users who get lists now."""
    return [
        number
        for number in range(len(source))
        if (found := folder.finished.get(number)) is None or found.users_sha256 != source.users_sha256(number)
    ]


def _made(source: ShardSource, numbers: Sequence[int], layout: Layout) -> Iterator[tuple[int, ShardFile]]:
    """Make shards, and yield each with its number as it is done."""
    executor = executor_in_use()
    model = source.model.for_workers
    if executor is None:
        for number in numbers:
            yield number, make_shard(model, source.of(number), layout)
        return
    shared = executor.put(model)
    try:
        for task, made in executor.completed(make_shard, ShardTasks(source, shared, numbers, layout), stage=STAGE):
            yield numbers[task], made
    finally:
        executor.release([shared])
