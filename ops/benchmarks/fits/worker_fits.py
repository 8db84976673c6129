"""Fits with workers beside fits of one process: seconds, bytes exchanged, and whether the tables are equal.

Invariants: one process of n threads and n workers of one thread each have the same cores; they take turns, and the
medians over the turns count. All processes have loaded the kernels before.
"""

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ops.benchmarks.fits.counted_executor import CountedExecutor
from service.executors.executor import using
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.kernels import threads
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.interactions import Interactions, Progress, no_progress

# Large enough for several tasks of every stage.
WARM_UP: Final = "demo:2000x400x260000"
_MEBIBYTE: Final = 1 << 20
_MEDIANS: Final = ("seconds", "epochs_s", "process_cpu_s", "workers_cpu_s")
HEADINGS: Final = (
    *("algorithm", "how", "fit s", "epochs s", "to one process", "process CPU s", "workers CPU s", "tables", "tasks"),
    *("put MiB", "returned MiB", "worker MiB"),
)


@dataclass
class WorkerFit:
    """The fits of an algorithm by one process, or by workers, on some cores.

    Attributes:
        n_cores: Threads of the process, or workers.
        seconds: Of each fit.
        epochs_s: Of all epochs or steps of each fit, without what is before and after them.
        process_cpu_s: Processor time of the process of each fit.
        workers_cpu_s: Processor time of the workers of each fit.
        digests: Of the tables of each fit.
        stages: Of the last fit: by stage, tasks, seconds and bytes of the results.
    """

    algorithm: str
    n_cores: int
    by_workers: bool
    seconds: list[float] = field(default_factory=list)
    epochs_s: list[float] = field(default_factory=list)
    process_cpu_s: list[float] = field(default_factory=list)
    workers_cpu_s: list[float] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)
    put_bytes: int = 0
    peak_bytes: int = 0
    stages: dict[str, dict[str, float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Return the median of the figures of a name over the fits."""
        figures: list[float] = getattr(self, name)
        return statistics.median(figures)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values, with medians over the fits."""
        medians = {name: self.median(name) for name in _MEDIANS}
        return asdict(self) | {"digests": sorted(self.digests)} | medians


def run(
    source: str,
    candidates: Sequence[ConfiguredAlgorithm],
    n_workers: Sequence[int],
    n_turns: int,
    on_progress: Callable[[str], None],
    warm_up: str = WARM_UP,
) -> list[WorkerFit]:
    """Fit each algorithm in turns by one process and by workers, on each number of cores.

    Args:
        warm_up: The data with which all processes load the kernels.

    Returns:
        For each algorithm and number of cores the fits of one process, then those of workers.

    Raises:
        DataError: The data is refused.
        RunError: A fit failed.
    """
    data, small = datasets.read(source), datasets.read(warm_up)
    measured: list[WorkerFit] = []
    for candidate in candidates:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            ways: list[tuple[WorkerFit, CountedExecutor | None]] = []
            for n in n_workers:
                ways.append((WorkerFit(candidate.name, n, by_workers=False), None))
                with threads.limit(n):
                    workers = stack.enter_context(CountedExecutor(n, folder))
                ways.append((WorkerFit(candidate.name, n, by_workers=True), workers))
            for way, executor in ways:
                _fit(small, candidate, way.n_cores, executor)
            for turn in range(n_turns):
                for way, executor in ways:
                    _measure(data, candidate, way, executor)
                    how = f"{way.n_cores} {'workers' if way.by_workers else 'threads'}"
                    on_progress(f"{candidate.name}, turn {turn + 1}, {how}: {way.seconds[-1]:.2f} s")
        measured += [way for way, _ in ways]
    return measured


def rows(measured: Sequence[WorkerFit]) -> Iterator[list[str]]:
    """Yield the rows of a table under `HEADINGS`."""
    for one in measured:
        alone = next(fit for fit in measured if fit.algorithm == one.algorithm and fit.n_cores == one.n_cores)
        first = next(fit for fit in measured if fit.algorithm == one.algorithm)
        seconds, epochs_s, process_cpu_s, workers_cpu_s = map(one.median, _MEDIANS)
        result_bytes = sum(stage["result_bytes"] for stage in one.stages.values())
        exchanged = (
            f"{sum(stage['n_tasks'] for stage in one.stages.values()):,.0f}",
            *(f"{n_bytes / _MEBIBYTE:,.0f}" for n_bytes in (one.put_bytes, result_bytes, one.peak_bytes)),
        )
        yield [
            one.algorithm,
            _how(one),
            *(f"{value:.2f}" for value in (seconds, epochs_s, seconds / alone.median("seconds"))),
            *(f"{value:.2f}" for value in (process_cpu_s, workers_cpu_s)),
            "equal" if one.digests == first.digests and len(one.digests) == 1 else "differ",
            *(exchanged if one.by_workers else ("",) * len(exchanged)),
        ]


def _how(one: WorkerFit) -> str:
    unit = "worker" if one.by_workers else "thread"
    return f"{one.n_cores} {unit}{'' if one.n_cores == 1 else 's'}"


def _measure(
    data: Interactions, candidate: ConfiguredAlgorithm, way: WorkerFit, executor: CountedExecutor | None
) -> None:
    ticks_s: list[float] = []
    if executor is not None:
        executor.reset()
    workers_cpu_s = 0.0 if executor is None else executor.cpu_s()
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    snapshot = _fit(data, candidate, way.n_cores, executor, lambda *_: ticks_s.append(time.perf_counter()))
    way.seconds.append(time.perf_counter() - started_s)
    way.epochs_s.append(ticks_s[-1] - ticks_s[0] if ticks_s else 0.0)
    way.process_cpu_s.append(time.process_time() - started_cpu_s)
    way.workers_cpu_s.append(0.0 if executor is None else executor.cpu_s() - workers_cpu_s)
    way.digests.add(_digest(snapshot))
    if executor is not None:
        way.put_bytes, way.peak_bytes = executor.put_bytes, executor.peak_bytes()
        way.stages = {name: asdict(count) for name, count in executor.stages.items()}


def _fit(
    data: Interactions,
    candidate: ConfiguredAlgorithm,
    n_cores: int,
    executor: CountedExecutor | None,
    progress: Progress = no_progress,
) -> ModelSnapshot:
    with threads.limit(n_cores), using(executor):
        return candidate.algorithm.fit(data, candidate.config, np.random.default_rng(0), progress)


def _digest(snapshot: ModelSnapshot) -> str:
    """Return the sha256 of the tables and of the neighbours of a model."""
    arrays: list[NDArray[Any]] = [snapshot.user_factors, snapshot.item_factors, snapshot.user_bias, snapshot.item_bias]
    if snapshot.neighbourhood is not None:
        weights = snapshot.neighbourhood.weights
        arrays += [weights.indptr, weights.indices, weights.data]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
