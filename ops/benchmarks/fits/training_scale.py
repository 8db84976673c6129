"""The growth of training time and memory with the data; also a measured process.

Invariants: each size of each algorithm is trained in a process of its own, so that memory is not shared; the data
exists before the peak is watched; users, items and ratings grow together, so that ratings per user are constant.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from ops.benchmarks.measured_process import measured_main, run_measured
from service.models.files import artefact
from service.training.algorithms.kernels import threads
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import demo
from service.training.data.demo import DemoSize
from service.training.evaluation import peak_memory
from service.training.interactions import Interactions, no_progress

_STEPS: Final = (16, 4, 1)
_TINY: Final = DemoSize(40, 30, 400)
_MEBIBYTE: Final = 1 << 20
HEADINGS: Final = (
    *("algorithm", "users", "items", "ratings", "make s", "fit s", "epoch s", "ns a rating", "of CPU", "to smallest"),
    *("data MiB", "before", "peak", "model"),
)


@dataclass(frozen=True, kw_only=True)
class ScaleTask:
    """One training on a synthetic set, by an algorithm that reports its epochs; settings are `key=value` texts."""

    algorithm: str
    settings: Sequence[str]
    n_users: int
    n_items: int
    n_ratings: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """The figures of one training.

    Attributes:
        make_s: Seconds of making the data.
        data_bytes: Its columns, without ids and titles.
        before_bytes: Resident memory before the training, data and ids included.
        peak_bytes: Most resident memory while training.
        model_bytes: Factors, biases, neighbours and history, as a replica maps them.
        fit_s: Seconds of the whole fit.
        epoch_s: Median seconds of an epoch.
        epoch_cpu_s: Median processor time of an epoch, in all threads.
    """

    make_s: float
    data_bytes: int
    before_bytes: int
    peak_bytes: int
    model_bytes: int
    fit_s: float
    epoch_s: float
    epoch_cpu_s: float


@dataclass(frozen=True)
class ScalePlan:
    """The trainings of each size; each algorithm has the settings n_factors and n_epochs."""

    algorithms: Sequence[str]
    n_factors: int
    n_epochs: int
    threads: int

    def tasks(self, most: DemoSize) -> Iterator[ScaleTask]:
        """Yield a 16th, a quarter and the whole of a size, for each algorithm.

        Raises:
            UsageError: An algorithm is unknown, or has not these settings.
            DataError: A size is too small or too large, or has more ratings than pairs.
        """
        settings = (f"n_factors={self.n_factors}", f"n_epochs={self.n_epochs}")
        for name in self.algorithms:
            ConfiguredAlgorithm.parse(name, settings)
            for step in _STEPS:
                size = DemoSize(most.n_users // step, most.n_items // step, most.n_ratings // step)
                demo.parse_spec(str(size))
                yield ScaleTask(algorithm=name, settings=settings, threads=self.threads, **asdict(size))


def run(plan: ScalePlan, most: DemoSize, on_progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """Measure every task up to the largest size.

    Returns:
        Tasks with their figures as plain JSON values, in the order of the plan.

    Raises:
        UsageError: An algorithm is unknown, or has not these settings.
        RunError: A training failed.
    """
    figures: list[dict[str, Any]] = []
    # All tasks are checked before the first one takes minutes.
    for task in list(plan.tasks(most)):
        scaled = run_measured("ops.benchmarks.fits.training_scale", task, Scaled)
        ns = 1e9 * scaled.epoch_s / task.n_ratings
        on_progress(
            f"{task.algorithm}, {task.n_ratings:,} ratings: {scaled.epoch_s:.2f} s an epoch, {ns:,.0f} ns a rating"
        )
        cpu_ns = 1e9 * scaled.epoch_cpu_s / task.n_ratings
        smallest = next((one for one in figures if one["algorithm"] == task.algorithm), None)
        figures.append(
            asdict(task)
            | asdict(scaled)
            | {
                "epoch_ns_per_rating": ns,
                "epoch_cpu_ns_per_rating": cpu_ns,
                "growth": cpu_ns / smallest["epoch_cpu_ns_per_rating"] if smallest else 1.0,
                "peak_to_data": scaled.peak_bytes / scaled.data_bytes,
            }
        )
    return figures


def exceeding(figures: Sequence[dict[str, Any]], max_growth: float) -> Iterator[str]:
    """Yield a sentence for each algorithm whose processor time per rating grows more, from the least size on."""
    for name, one in {figure["algorithm"]: figure for figure in figures}.items():
        if (growth := one["growth"]) > max_growth:
            yield f"a rating costs {name} {growth:.2f} times as much"


def rows(figures: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    """Yield the rows of a table under `HEADINGS`."""
    for one in figures:
        yield [
            one["algorithm"],
            f"{one['n_users']:,}",
            f"{one['n_items']:,}",
            f"{one['n_ratings']:,}",
            f"{one['make_s']:.1f}",
            f"{one['fit_s']:.1f}",
            f"{one['epoch_s']:.2f}",
            f"{one['epoch_ns_per_rating']:,.0f}",
            f"{one['epoch_cpu_ns_per_rating']:,.0f}",
            f"{one['growth']:.2f}",
            *(f"{one[name] / _MEBIBYTE:,.0f}" for name in ("data_bytes", "before_bytes", "peak_bytes", "model_bytes")),
        ]


async def measure(task: ScaleTask) -> Scaled:
    """Make the data and train once."""
    candidate = ConfiguredAlgorithm.parse(task.algorithm, task.settings)
    with threads.limit(task.threads):
        # Compiles the kernels, or loads them.
        tiny = demo.generate(_TINY, no_progress)
        candidate.algorithm.fit(tiny, candidate.config, np.random.default_rng(0), no_progress)
        started_s = time.perf_counter()
        data = demo.generate(DemoSize(task.n_users, task.n_items, task.n_ratings), no_progress)
        make_s = time.perf_counter() - started_s
        ticks: list[tuple[float, float]] = []

        def on_epoch(_: str, done: int, total: int) -> None:
            ticks.append((time.perf_counter(), time.process_time()))

        peak_memory.reset_peak()
        before_bytes = peak_memory.peak_bytes()
        started_s = time.perf_counter()
        snapshot = candidate.algorithm.fit(data, candidate.config, np.random.default_rng(0), on_epoch)
        fit_s = time.perf_counter() - started_s
    epochs = [(end[0] - begin[0], end[1] - begin[1]) for begin, end in itertools.pairwise(ticks)]
    return Scaled(
        make_s=make_s,
        data_bytes=_data_bytes(data),
        before_bytes=before_bytes,
        peak_bytes=peak_memory.peak_bytes(),
        model_bytes=artefact.size_bytes(snapshot),
        fit_s=fit_s,
        epoch_s=statistics.median(seconds for seconds, _ in epochs),
        epoch_cpu_s=statistics.median(cpu_s for _, cpu_s in epochs),
    )


def _data_bytes(data: Interactions) -> int:
    columns = (data.user_rows, data.item_rows, data.ratings, data.timestamps)
    return sum(column.nbytes for column in columns if column is not None)


if __name__ == "__main__":
    measured_main(ScaleTask, measure)
