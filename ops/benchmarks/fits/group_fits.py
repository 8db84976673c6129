"""Networks trained by groups beside one process: seconds of an epoch, and the quality of lists or predictions.

Invariants: a group of n members has n cores, as one process of n threads has. All ways take turns within a seed, learn
from the same interactions for the same epochs, and are measured on the same hidden ones.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.errors import DataError
from service.executors.executor import Executor, using
from service.executors.local_executor import LocalExecutor
from service.training.algorithms.kernels import threads
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.hold_out.measures import measure
from service.training.hold_out.split import HoldOut, hold_out
from service.training.interactions import Interactions

HEADINGS: Final = ("algorithm", "how", "exchange", "epoch s", "to one thread", "besides s", "measure", "mean", "spread")


@dataclass
class GroupFit:
    """The fits of an algorithm in one way, one for each seed.

    Attributes:
        n_members: Of the group; 0 for one process.
        n_threads: Of the process, or of each member.
        average_every: Batches between two exchanges of parameters; 0 if gradients are added.
        measure: The name of the measure of quality.
        epoch_s: The mean seconds of an epoch of each fit, its validation included.
        besides_s: The seconds of each fit before and after its epochs, without measuring it.
        quality: Of each fit.
    """

    algorithm: str
    n_members: int
    n_threads: int
    average_every: int = 0
    measure: str = ""
    epoch_s: list[float] = field(default_factory=list)
    besides_s: list[float] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)

    @property
    def how(self) -> str:
        """What computes."""
        if self.n_members:
            return f"{self.n_members} members"
        return f"{self.n_threads} thread{'' if self.n_threads == 1 else 's'}"

    @property
    def exchange(self) -> str:
        """What is exchanged."""
        if not self.n_members:
            return ""
        return f"parameters, every {self.average_every} batches" if self.average_every else "gradients"


def run(
    source: str,
    candidates: Sequence[ConfiguredAlgorithm],
    n_members: Sequence[int],
    averages: Sequence[int],
    n_seeds: int,
    on_progress: Callable[[str], None],
) -> list[GroupFit]:
    """Fit networks by one process of one and of several threads, and by groups with each exchange.

    Args:
        candidates: Networks; early stopping is for their settings to switch off.
        n_members: Sizes of groups.
        averages: Values of `average_every`, besides 0.
        n_seeds: Fits of each.

    Raises:
        DataError: The data is refused, or too small to hide any of it.
        RunError: A fit failed.
    """
    data = datasets.read(source)
    hidden = hold_out(data, np.random.default_rng(0))
    if hidden is None:
        raise DataError(f"{source} has too few interactions to hide any.")
    measured: list[GroupFit] = []
    for candidate in candidates:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            ways: list[tuple[GroupFit, Executor | None]] = [
                (GroupFit(candidate.name, 0, n), None) for n in sorted({1, *n_members})
            ]
            for n in n_members:
                with threads.limit(n):
                    group = stack.enter_context(LocalExecutor(n, folder))
                ways += [(GroupFit(candidate.name, n, 1, every), group) for every in (0, *averages)]
            for seed in range(n_seeds):
                for way, executor in ways:
                    _measure(data, hidden, candidate, way, executor, seed)
                    on_progress(
                        f"{way.algorithm}, seed {seed}, {way.how} {way.exchange}: {way.epoch_s[-1]:.2f} s an epoch, "
                        f"{way.measure} {way.quality[-1]:.4f}"
                    )
        measured += [way for way, _ in ways]
    return measured


def rows(measured: Sequence[GroupFit]) -> Iterator[list[str]]:
    """Yield the rows of a table under `HEADINGS`."""
    for one in measured:
        first = next(fit for fit in measured if fit.algorithm == one.algorithm)
        epoch_s = statistics.median(one.epoch_s)
        spread = f"{statistics.stdev(one.quality):.4f}" if len(one.quality) > 1 else ""
        yield [
            *(one.algorithm, one.how, one.exchange),
            *(f"{epoch_s:.2f}", f"{epoch_s / statistics.median(first.epoch_s):.2f}"),
            *(f"{statistics.median(one.besides_s):.1f}", one.measure, f"{statistics.mean(one.quality):.4f}", spread),
        ]


def as_json(measured: Sequence[GroupFit]) -> list[dict[str, Any]]:
    """Return plain JSON values."""
    return [asdict(one) for one in measured]


def _measure(
    data: Interactions,
    hidden: HoldOut,
    candidate: ConfiguredAlgorithm,
    way: GroupFit,
    executor: Executor | None,
    seed: int,
) -> None:
    config = replace(candidate.config, average_every=way.average_every)
    ticks_s: list[float] = []
    fit = replace(candidate.algorithm, fit=_ended(candidate.algorithm.fit, ticks_s))
    candidate = replace(candidate, config=config, algorithm=fit)
    started_s = time.perf_counter()
    with threads.limit(way.n_threads), using(executor):
        found, _ = measure(
            *(data, hidden, candidate, np.random.SeedSequence(seed)), lambda *_: ticks_s.append(time.perf_counter())
        )
    *epochs_s, ended_s = ticks_s
    way.epoch_s.append((epochs_s[-1] - epochs_s[0]) / max(1, len(epochs_s) - 1))
    way.besides_s.append(ended_s - started_s - (epochs_s[-1] - epochs_s[0]))
    way.measure = next(iter(found.errors), "ndcg@10")
    way.quality.append(found.errors.get(way.measure, found.quality.ndcg))


def _ended(fit: Any, ticks_s: list[float]) -> Any:
    """Return a fit that also notes when it has ended."""

    def ended(*arguments: Any) -> Any:
        model = fit(*arguments)
        ticks_s.append(time.perf_counter())
        return model

    return ended
