"""Runs our models beside those of the public libraries, on the same folds in the same run.

The invariants: both sides learn from the same training ratings and are asked for the same pairs or the same users; what
both answer is judged by the same measures, ours; they take turns, fold by fold and model by model, on the same cores,
so that a drift of the machine meets both. A peer's process is new with each fold.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ops.benchmarks.peers import peer
from ops.benchmarks.peers.pairs import LENGTH, LIBRARIES, MEASURES, PAIRS, SHARED, SLOW, Ask, Pair
from ops.benchmarks.peers.peer import Peer, Seconds
from ops.benchmarks.peers.peer_program import Fold, timed
from service.errors import RunError, UsageError
from service.training.algorithms.registry import Candidate
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.evaluation.measures.prediction_error import RATING_MEASURES
from service.training.evaluation.measures.ranking import RANKING_MEASURES
from service.training.evaluation.measures.relevance import Relevance, relevant_items
from service.training.evaluation.split_dataset import Split, SplitDataset
from service.training.evaluation.top_n_lists import top_n_lists
from service.training.evaluation.warm_up import warm_up
from service.training.interactions import no_progress


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        candidates: Ours, in the order of the result.
        protocol: How the data was cut; its seed decides what the peers draw, too.
        python: The interpreter of the peers' environment.
        libraries: Which peers; without any, ours run alone.
        threads: How many threads, and cores, each side may use.
        peer_folds: A peer has a turn on so many folds at most; None: on all.
        slow_folds: Likewise the peer that takes minutes a fold.
        peer_settings: Of peers, by the model's name there.
    """

    candidates: Sequence[Candidate]
    protocol: EvaluationProtocol
    python: Path
    libraries: Sequence[str] = LIBRARIES
    threads: int = 1
    peer_folds: int | None = None
    slow_folds: int = 1
    peer_settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def pairs(self, name: str) -> list[Pair]:
        """Return the pairs of one of our algorithms."""
        return [pair for pair in PAIRS if pair.ours == name and pair.library in self.libraries]

    def settings(self, pair: Pair, config: Any) -> dict[str, Any]:
        """Return the settings of a peer that are not its library's defaults, given those of ours."""
        shared = {theirs: getattr(config, ours) for theirs, ours in SHARED.get((pair.theirs, pair.ask), {}).items()}
        return shared | self.peer_settings.get(pair.theirs, {})

    def has_turn(self, pair: Pair, fold: int) -> bool:
        """Say whether a peer is run on a fold."""
        limits = (self.peer_folds, self.slow_folds if pair.theirs == SLOW else None)
        return all(limit is None or fold < limit for limit in limits)


@dataclass
class Side:
    """One model, asked for one thing, over the folds that it had a turn on, which begin with the first.

    Attributes:
        measures: By name, a value per fold.
        seconds: One entry per fold.
    """

    measures: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[Seconds] = field(default_factory=list)

    def add(self, values: dict[str, float], seconds: Seconds) -> None:
        """Take in what one fold gave."""
        for name, value in values.items():
            self.measures.setdefault(name, []).append(value)
        self.seconds.append(seconds)


@dataclass
class Contest:
    """Everything that was measured.

    Attributes:
        ours: By our algorithm's name and what was asked.
        theirs: By pair.
        peers: By library, each process in turn; none of them runs any more.
        n_listed: Users ranked for, all folds together.
    """

    ours: dict[tuple[str, Ask], Side] = field(default_factory=dict)
    theirs: dict[Pair, Side] = field(default_factory=dict)
    peers: dict[str, list[Peer]] = field(default_factory=dict)
    n_listed: int = 0


def run(plan: Plan, cut: SplitDataset, say: Callable[[str], None]) -> Contest:
    """Run everybody.

    Args:
        plan: Who, and how.
        cut: The folds.
        say: Told a sentence after each turn.

    Raises:
        UsageError: There are fewer cores than threads.
        RunError: A peer failed, or predicted no number.
        TrainingDiverged: One of ours did.
    """
    contest = Contest()
    with _on_cores(plan.threads), threadpool_limits(limits=plan.threads):
        for index, split in enumerate(cut.splits()):
            with contextlib.ExitStack() as stack:
                _turns(contest, plan, index, split, stack, say)
    return contest


def _turns(
    contest: Contest, plan: Plan, index: int, split: Split, stack: contextlib.ExitStack, say: Callable[[str], None]
) -> None:
    """Give everybody a turn on one fold."""
    is_known = np.bincount(split.train.user_rows, minlength=len(split.train.users)) > 0
    judged = relevant_items(split.test)
    # Not every library takes a user of whom it knows nothing.
    judged = judged.keep_users(is_known[judged.user_rows])
    contest.n_listed += len(judged)
    fold = _fold(plan, index, split, judged)
    started: dict[str, Peer] = {}
    for candidate in plan.candidates:
        pairs = plan.pairs(candidate.name)
        asks: set[Ask] = {"predict" if candidate.kind == "rating" else "rank", *(pair.ask for pair in pairs)}
        if not index:
            warm_up(candidate, split.train)
        for ask, (answer, seconds) in _ours(plan, index, candidate, split, judged, sorted(asks)).items():
            values = _judge(candidate.name, ask, answer, split, judged)
            contest.ours.setdefault((candidate.name, ask), Side()).add(values, seconds)
            say(_turn(index, "recollect", candidate.name, values, seconds))
        for pair in (pair for pair in pairs if plan.has_turn(pair, index)):
            if pair.library not in started:
                started[pair.library] = stack.enter_context(peer.started(plan.python, pair.library, fold))
                contest.peers.setdefault(pair.library, []).append(started[pair.library])
            answer, seconds = started[pair.library].ask(
                pair.theirs, pair.ask, seed=plan.protocol.seed + index, settings=plan.settings(pair, candidate.config)
            )
            values = _judge(pair.theirs, pair.ask, answer, split, judged)
            contest.theirs.setdefault(pair, Side()).add(values, seconds)
            say(_turn(index, pair.library, pair.theirs, values, seconds))


def _fold(plan: Plan, index: int, split: Split, judged: Relevance) -> Fold:
    """Return what the peers are given; scikit-surprise's own folds are shuffled, and it learns in their order."""
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


def _ours(
    plan: Plan, index: int, candidate: Candidate, split: Split, judged: Relevance, asks: Sequence[Ask]
) -> dict[Ask, tuple[NDArray[Any], Seconds]]:
    """Fit one of ours, once, and ask it; fitting counts in each answer."""
    rng = np.random.default_rng(plan.protocol.seeds().fits[index])
    snapshot, *fitted = timed(lambda: candidate.fit(split.train, candidate.config, rng, no_progress))
    work: dict[Ask, Callable[[], NDArray[Any]]] = {
        "predict": lambda: candidate.predict(snapshot, split.test.user_rows, split.test.item_rows),
        "rank": lambda: top_n_lists(snapshot, judged.user_rows, LENGTH),
    }
    answers = {}
    for ask in asks:
        answer, *answered = timed(work[ask])
        answers[ask] = (answer, Seconds(*fitted, *answered))
    return answers


def _judge(name: str, ask: Ask, answer: NDArray[Any], split: Split, judged: Relevance) -> dict[str, float]:
    """Return the measures of an answer, in which ratings count as if clipped to the scale."""
    if ask == "predict":
        if not np.isfinite(answer).all():
            raise RunError(f"{name} predicted no number for {np.count_nonzero(~np.isfinite(answer))} pairs.")
        clipped = np.clip(answer, split.test.rating_min, split.test.rating_max)
        return {measure: RATING_MEASURES[measure](clipped, split.test.ratings) for measure in MEASURES[ask]}
    hits = judged.hits(answer)
    return {
        measure: float(RANKING_MEASURES[measure.partition("@")[0]](hits, judged.counts).mean())
        for measure in MEASURES[ask]
    }


def _turn(index: int, side: str, name: str, values: dict[str, float], seconds: Seconds) -> str:
    reached = ", ".join(f"{measure} {value:.4f}" for measure, value in values.items())
    return f"fold {index + 1}: {side} {name}: {reached}, {seconds.total_s:.2f} s"


@contextlib.contextmanager
def _on_cores(n: int) -> Iterator[None]:
    """Keep this process, and so all that it starts inside, on n cores."""
    before = os.sched_getaffinity(0)
    if n > len(before):
        raise UsageError(f"There are {len(before)} cores, and so no more threads than that.")
    os.sched_setaffinity(0, sorted(before)[:n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
