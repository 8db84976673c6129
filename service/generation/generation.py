"""A generation: the shards that are missing in its folder, by the workers of the command or in this process.

Invariant: every user has one list in one file, whatever died meanwhile: a shard's users follow from its number, only
this process writes files, and a shard is made again until its file is recorded. The lists do not depend on workers.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from service.executors.executor import executor_in_use
from service.generation.files.output_folder import OutputFolder
from service.generation.files.shard_file import ShardFile, shard_file
from service.generation.files.shard_format import Layout
from service.generation.lists.list_model import BulkModel
from service.generation.lists.shard_lists import shard_lists
from service.generation.shard import make_shard
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
    source.leave_out(erased())
    while missing := _missing(folder, source):
        n_before = len(source) - len(missing)
        progress(STAGE, n_before, len(source))
        for n_done, (number, made) in enumerate(_made(source, missing, layout), n_before + 1):
            folder.add(number, made, source.users_sha256(number))
            progress(STAGE, n_done, len(source))
        source.leave_out(erased())


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
        yield from _made_here(source, model, numbers, layout)
        return
    shared = executor.put(model)
    try:
        for task, made in executor.completed(make_shard, ShardTasks(source, shared, numbers, layout), stage=STAGE):
            yield numbers[task], made
    finally:
        executor.release([shared])


def _made_here(
    source: ShardSource, model: BulkModel, numbers: Sequence[int], layout: Layout
) -> Iterator[tuple[int, ShardFile]]:
    """Make shards in this process; a thread encodes the file of one while the lists of the next are made."""
    encoded: tuple[int, Future[ShardFile]] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="shard-file") as pool:
        for number in numbers:
            users = source.of(number)
            lists = shard_lists(model, users)
            before = encoded
            encoded = number, pool.submit(shard_file, users.ids, lists, model.snapshot.items, layout)
            if before is not None:
                yield before[0], before[1].result()
        if encoded is not None:
            yield encoded[0], encoded[1].result()
