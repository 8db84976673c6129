"""Runs our models and those of public libraries, the peers, on the same folds in the same run.

Invariants: both sides learn from the same training ratings, predict the same pairs or rank for the same users, and are
judged by our measures. They take turns, fold by fold and model by model, on the same cores, so that a drift of the
machine affects both. A peer has a new process for each fold.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ops.benchmarks.peers import peer
from ops.benchmarks.peers.pairs import LENGTH, LIBRARIES, MEASURES, PAIRS, SHARED, SLOW, Pair, Task
from ops.benchmarks.peers.peer import Peer, Seconds
from ops.benchmarks.peers.peer_program import Fold, timed
from ops.benchmarks.workbench import pinned
from service.errors import RunError, UsageError
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.evaluation.kernel_compilation import compile_kernels
from service.training.evaluation.measures.prediction_error import RATING_MEASURES
from service.training.evaluation.measures.ranking import RANKING_MEASURES
from service.training.evaluation.measures.relevance import Relevance, relevant_items
from service.training.evaluation.split_dataset import Split, SplitDataset
from service.training.evaluation.top_n_lists import top_n_lists
from service.training.interactions import no_progress


@dataclass(frozen=True)
class ContestPlan:
    """The models, folds and resources of a contest.

    Attributes:
        protocol: The split; its seed also seeds the peers.
        python: The interpreter of the peers' environment.
        threads: The threads and cores of each side.
        peer_folds: The most folds of a peer; None for all.
        slow_folds: The most folds of the peer that takes minutes a fold.
    """

    candidates: Sequence[ConfiguredAlgorithm]
    protocol: EvaluationProtocol
    python: Path
    libraries: Sequence[str] = LIBRARIES
    threads: int = 1
    peer_folds: int | None = None
    slow_folds: int = 1
    peer_settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def pairs(self, name: str) -> list[Pair]:
        """Return the pairs of one of our algorithms."""
        return [pair for pair in PAIRS if pair.algorithm == name and pair.library in self.libraries]

    def settings(self, pair: Pair, config: Any) -> dict[str, Any]:
        """Return the settings of a peer that differ from its library's defaults, given our config."""
        shared = {name: getattr(config, own_name) for name, own_name in SHARED.get((pair.model, pair.task), {}).items()}
        return shared | self.peer_settings.get(pair.model, {})

    def has_turn(self, pair: Pair, fold: int) -> bool:
        """Return whether a peer is run on a fold."""
        limits = (self.peer_folds, self.slow_folds if pair.model == SLOW else None)
        return all(limit is None or fold < limit for limit in limits)


@dataclass
class Side:
    """The results of one model in one task, one entry per fold from the first one on."""

    measures: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[Seconds] = field(default_factory=list)

    def add(self, values: dict[str, float], seconds: Seconds) -> None:
        """Add the results of a fold."""
        for name, value in values.items():
            self.measures.setdefault(name, []).append(value)
        self.seconds.append(seconds)


@dataclass
class Contest:
    """All results.

    Attributes:
        own: Our models, by algorithm and task.
        by_pair: The peers.
        peers: The ended processes, by library.
        n_listed: The users ranked for, in all folds.
    """

    own: dict[tuple[str, Task], Side] = field(default_factory=dict)
    by_pair: dict[Pair, Side] = field(default_factory=dict)
    peers: dict[str, list[Peer]] = field(default_factory=dict)
    n_listed: int = 0


def run(plan: ContestPlan, dataset: SplitDataset, on_progress: Callable[[str], None]) -> Contest:
    """Run every model on every fold; `on_progress` gets a sentence after each turn.

    Raises:
        UsageError: There are fewer cores than threads.
        RunError: A peer failed, or predicted no number.
        TrainingDiverged: One of our models did.
    """
    contest = Contest()
    cores = sorted(os.sched_getaffinity(0))
    if plan.threads > len(cores):
        raise UsageError(f"There are {len(cores)} cores, so at most as many threads.")
    with pinned(cores[: plan.threads]), threadpool_limits(limits=plan.threads):
        for index, split in enumerate(dataset.splits()):
            with contextlib.ExitStack() as stack:
                _run_fold(contest, plan, index, split, stack, on_progress)
    return contest


def _run_fold(
    contest: Contest,
    plan: ContestPlan,
    index: int,
    split: Split,
    stack: contextlib.ExitStack,
    on_progress: Callable[[str], None],
) -> None:
    """Give every model a turn on one fold."""
    is_known = np.bincount(split.train.user_rows, minlength=len(split.train.users)) > 0
    judged = relevant_items(split.test)
    # Some libraries refuse users without training ratings.
    judged = judged.keep_users(is_known[judged.user_rows])
    contest.n_listed += len(judged)
    fold = _fold(plan, index, split, judged)
    started: dict[str, Peer] = {}
    for candidate in plan.candidates:
        pairs = plan.pairs(candidate.name)
        tasks: set[Task] = {
            "predict" if candidate.algorithm.kind == "rating" else "rank",
            *(pair.task for pair in pairs),
        }
        if not index:
            compile_kernels(candidate, split.train)
        for task, (answer, seconds) in _run_own(plan, index, candidate, split, judged, sorted(tasks)).items():
            values = _measure(candidate.name, task, answer, split, judged)
            contest.own.setdefault((candidate.name, task), Side()).add(values, seconds)
            on_progress(_turn_line(index, "recollect", candidate.name, values, seconds))
        for pair in (pair for pair in pairs if plan.has_turn(pair, index)):
            if pair.library not in started:
                started[pair.library] = stack.enter_context(peer.started(plan.python, pair.library, fold))
                contest.peers.setdefault(pair.library, []).append(started[pair.library])
            answer, seconds = started[pair.library].answer(
                pair.model, pair.task, seed=plan.protocol.seed + index, settings=plan.settings(pair, candidate.config)
            )
            values = _measure(pair.model, pair.task, answer, split, judged)
            contest.by_pair.setdefault(pair, Side()).add(values, seconds)
            on_progress(_turn_line(index, pair.library, pair.model, values, seconds))


def _fold(plan: ContestPlan, index: int, split: Split, judged: Relevance) -> Fold:
    """Return the fold of the peers, shuffled like the folds of scikit-surprise, which learns in their order."""
    train, test = split
    order = np.random.default_rng([plan.protocol.seed, index]).permutation(len(train))
    return Fold(
        users=train.user_rows[order].astype(np.int64),
        items=train.item_rows[order].astype(np.int64),
        ratings=train.ratings[order].astype(np.float64),
        test_users=test.user_rows.astype(np.int64),
        test_items=test.item_rows.astype(np.int64),
        listed_users=judged.user_rows,
        n_users=len(train.users),
        n_items=len(train.items),
        rating_min=train.rating_min,
        rating_max=train.rating_max,
        threads=plan.threads,
        length=LENGTH,
    )


def _run_own(
    plan: ContestPlan,
    index: int,
    candidate: ConfiguredAlgorithm,
    split: Split,
    judged: Relevance,
    tasks: Sequence[Task],
) -> dict[Task, tuple[NDArray[Any], Seconds]]:
    """Fit one of our models once, and let it answer each task; fitting counts in each."""
    rng = np.random.default_rng(plan.protocol.seeds().fits[index])
    snapshot, *fitted = timed(lambda: candidate.algorithm.fit(split.train, candidate.config, rng, no_progress))
    work: dict[Task, Callable[[], NDArray[Any]]] = {
        "predict": lambda: candidate.algorithm.predict(snapshot, split.test.user_rows, split.test.item_rows),
        "rank": lambda: top_n_lists(snapshot, judged.user_rows, LENGTH),
    }
    answers = {}
    for task in tasks:
        answer, *answered = timed(work[task])
        answers[task] = (answer, Seconds(*fitted, *answered))
    return answers


def _measure(name: str, task: Task, answer: NDArray[Any], split: Split, judged: Relevance) -> dict[str, float]:
    """Return the measures of an answer; predicted ratings are clipped to the scale."""
    if task == "predict":
        if not np.isfinite(answer).all():
            raise RunError(f"{name} predicted no number for {np.count_nonzero(~np.isfinite(answer))} pairs.")
        clipped = np.clip(answer, split.test.rating_min, split.test.rating_max)
        return {measure: RATING_MEASURES[measure](clipped, split.test.ratings) for measure in MEASURES[task]}
    hits = judged.hits(answer)
    return {
        measure: float(RANKING_MEASURES[measure.partition("@")[0]](hits, judged.counts).mean())
        for measure in MEASURES[task]
    }


def _turn_line(index: int, side: str, name: str, values: dict[str, float], seconds: Seconds) -> str:
    reached = ", ".join(f"{measure} {value:.4f}" for measure, value in values.items())
    return f"fold {index + 1}: {side} {name}: {reached}, {seconds.total_s:.2f} s"
