"""Lists in bulk against what they cannot do without: the matrix product of users and items, and a selection from it.

Two selections are yardsticks: numpy's `argpartition` of each block of products, which is what a short program would
call, and the product with the selection kernel alone, without seen items, exact scores, order and file. All of them
take the same users in turns, on one thread, and processor time counts.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from ops.benchmarks.fits.counted_executor import cpu_s
from service.executors.executor import using
from service.executors.local_executor import LocalExecutor
from service.generation.bulk_users import BulkUsers, default_shard_users
from service.generation.files.output_folder import OutputFolder
from service.generation.generation import generate
from service.generation.lists.block_lists import BlockUsers, best_items
from service.generation.lists.list_model import BulkModel
from service.generation.lists.selection import Buffers, add_tile
from service.generation.lists.shard_users import ShardUsers
from service.generation.shard import make_shard
from service.generation.shard_source import ShardSource
from service.lists.list_request import ListRequest
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.training.algorithms.kernels.threads import limit, one_blas_thread
from telemetry.pseudonym import Pseudonymiser

PRODUCT: Final = "product"
ARGPARTITION: Final = "product and argpartition"
SELECTION: Final = "product and selection kernel"
LISTS: Final = "lists"
FILES: Final = "lists as Parquet files"
_BLOCK: Final = 256
_SEEN: Final = 20


class GenerationCost(NamedTuple):
    """The figures of one run.

    Attributes:
        us_per_user: By what is measured: median microseconds of a core for a user.
        ratio: How many users whole files reach of `ARGPARTITION`: the median of the rounds.
        ratio_of_kernel: The same of `SELECTION`.
        workers: By number of workers: users a second, and microseconds of the cores of all processes for a user;
            medians.
        bytes_per_user: The size of the files.
    """

    us_per_user: Mapping[str, float]
    ratio: float
    ratio_of_kernel: float
    workers: Mapping[int, tuple[float, float]]
    bytes_per_user: float


class WorkerRuns(NamedTuple):
    """What whole generations are measured.

    Attributes:
        counts: The numbers of worker processes to compare.
        n_users: The users of each generation.
        n_runs: Generations of each number.
    """

    counts: tuple[int, ...]
    n_users: int
    n_runs: int


def measure(n_users: int, n_items: int, n_factors: int, n: int, rounds: int, runs: WorkerRuns) -> GenerationCost:
    """Measure all of them.

    Args:
        n_users: In all rounds together.
        n_items: Of the catalogue.
        n_factors: Of a user and an item.
        n: The length of a list.
        rounds: In each, every method takes the same users.
        runs: With worker processes.
    """
    model = BulkModel(random_model(max(n_users, runs.n_users), n_items, n_factors), ListRequest(n))
    users = BulkUsers.of_model(model.snapshot)
    items = model.items
    size_bytes = 0

    def product(part: BlockUsers) -> None:
        for start in range(0, part.n_users, _BLOCK):
            part.factors[start : start + _BLOCK] @ items.factors.T

    def argpartition(part: BlockUsers) -> None:
        for start in range(0, part.n_users, _BLOCK):
            scores = part.factors[start : start + _BLOCK] @ items.factors.T
            scores.argpartition(scores.shape[1] - n, axis=1)[:, -n:]

    def selection(part: BlockUsers) -> None:
        none, no_seen = np.zeros(_BLOCK + 1, np.int64), np.empty(0, np.int32)
        for start in range(0, part.n_users, _BLOCK):
            block = part.factors[start : start + _BLOCK]
            buffers = Buffers.empty(len(block), n, none[: len(block) + 1])
            for first in range(0, n_items, 1024):
                some = slice(first, first + 1024)
                tile = block @ items.factors[some].T
                add_tile(buffers, n, tile, first, items.bias[some], none, no_seen)

    per_round = n_users // rounds
    taken: dict[str, list[float]] = {name: [] for name in (PRODUCT, ARGPARTITION, SELECTION, LISTS, FILES)}
    for_workers = model.for_workers
    with limit(1), one_blas_thread():
        # Compiled before the first round.
        best_items(items, BlockUsers.trained(model.snapshot).take(np.arange(_BLOCK)), n)
        for number in range(rounds):
            rows = np.arange(number * per_round, (number + 1) * per_round)
            shard = ShardUsers.of(model.snapshot, users.ids[rows[0] : rows[-1] + 1], rows, {})
            part = BlockUsers.trained(shard.model(for_workers))

            def files(shard: ShardUsers = shard) -> None:
                nonlocal size_bytes
                size_bytes += make_shard(for_workers, shard, "rows").content.nbytes

            methods: dict[str, Callable[[], object]] = {
                PRODUCT: lambda part=part: product(part),  # type: ignore[misc]
                ARGPARTITION: lambda part=part: argpartition(part),  # type: ignore[misc]
                SELECTION: lambda part=part: selection(part),  # type: ignore[misc]
                LISTS: lambda part=part: best_items(items, part, n),  # type: ignore[misc]
                FILES: files,
            }
            # Another one begins in each round.
            names = [*methods][number % len(methods) :] + [*methods][: number % len(methods)]
            for name in names:
                started_s = time.process_time()
                methods[name]()
                taken[name].append(time.process_time() - started_s)
    ratios = {
        name: statistics.median(b / f for b, f in zip(taken[name], taken[FILES], strict=True))
        for name in (ARGPARTITION, SELECTION)
    }
    return GenerationCost(
        {name: 1e6 * statistics.median(times) / per_round for name, times in taken.items()},
        ratios[ARGPARTITION],
        ratios[SELECTION],
        _with_workers(model, _first(users, runs.n_users), n, runs),
        size_bytes / (per_round * rounds),
    )


def _with_workers(model: BulkModel, users: BulkUsers, n: int, runs: WorkerRuns) -> dict[int, tuple[float, float]]:
    """Return users a second and microseconds for a user of each number of workers, once they run; in turns."""
    source = ShardSource(model, users, default_shard_users(len(users), n), None, Pseudonymiser())
    found: dict[int, list[tuple[float, float]]] = {count: [] for count in runs.counts}
    for _ in range(runs.n_runs):
        for count in runs.counts:
            with TemporaryDirectory(prefix="recollect-generate-") as home:
                found[count].append(_by_workers(count, Path(home), model, users, source))
    return {
        count: (statistics.median(rate for rate, _ in each), statistics.median(us for _, us in each))
        for count, each in found.items()
    }


def _by_workers(count: int, home: Path, model: BulkModel, users: BulkUsers, source: ShardSource) -> tuple[float, float]:
    """Return users a second and microseconds for a user of so many workers, which have a thread each."""
    pids = {os.getpid()}
    with limit(count):
        executor = LocalExecutor(count, home / "executor", lambda event: pids.add(event.pid))
    with executor, using(executor):
        _into(home / "warm", ShardSource(model, _first(users, 256 * count), 256, None, Pseudonymiser()))
        started_s, before_s = time.perf_counter(), sum(map(cpu_s, pids))
        _into(home / "lists", source)
        took_s, all_s = time.perf_counter() - started_s, sum(map(cpu_s, pids)) - before_s
    return len(users) / took_s, 1e6 * all_s / len(users)


def _first(users: BulkUsers, count: int) -> BulkUsers:
    return BulkUsers(users.ids[:count], users.rows[:count])


def _into(path: Path, source: ShardSource) -> None:
    erased = np.zeros(len(source.users), bool)
    with OutputFolder.held(path) as folder:
        folder.begin({})
        generate(folder, source, "rows", lambda: erased, lambda *_: None)


def random_model(n_users: int, n_items: int, n_factors: int) -> ModelSnapshot:
    """Return a model of random factors, whose users have seen twenty items each: no order of items helps."""
    rng = np.random.default_rng(5)
    seen = np.sort(rng.integers(0, n_items, (n_users, _SEEN)), axis=1) if n_items > _SEEN else np.zeros((n_users, 1))
    is_first = np.ones(seen.shape, bool)
    is_first[:, 1:] = seen[:, 1:] != seen[:, :-1]
    indptr = np.zeros(n_users + 1, np.int64)
    np.cumsum(is_first.sum(axis=1), out=indptr[1:])
    indices = seen[is_first].astype(np.int32)
    values: Any = np.ones(indices.size, np.float32)
    return ModelSnapshot(
        algorithm="random",
        settings={},
        users=Vocabulary(f"user-{row}" for row in range(n_users)),
        items=Vocabulary(f"item-{row}" for row in range(n_items)),
        user_factors=rng.standard_normal((n_users, n_factors), np.float32),
        item_factors=rng.standard_normal((n_items, n_factors), np.float32) / np.float32(np.sqrt(n_factors)),
        user_bias=np.zeros(n_users, np.float32),
        item_bias=np.zeros(n_items, np.float32),
        global_mean=0.0,
        rating_min=1.0,
        rating_max=1.0,
        history=csr_array((values, indices, indptr), shape=(n_users, n_items)),
        popularity=rng.permutation(n_items).astype(np.float32),
        data_as_of="2026-01-01T00:00:00.000Z",
    )
