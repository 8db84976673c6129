"""The result of a contest: figures, tables, and bounds (pure).

A difference is the mean over the folds of both sides, Recollect less the peer; a ratio of times, the peer to Recollect.
"""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ops.benchmarks.peers.contest import Contest, ContestPlan, Side
from ops.benchmarks.peers.pairs import (
    MARGINS,
    MAX_S,
    MEASURES,
    MOVIELENS_1M,
    MOVIELENS_100K,
    PUBLISHED_100K,
    Pair,
    Task,
)
from service.training import hyperparameters
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.interactions import Interactions

_TABLES: dict[Task, str] = {"predict": "errors of predicted ratings", "rank": "lists of the full catalogue"}


@dataclass(frozen=True)
class Bound:
    """An upper bound on a figure."""

    name: str
    value: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit


def shape(data: Interactions) -> tuple[int, int, int]:
    """Return the numbers of users, items and ratings."""
    return len(data.users), len(data.items), len(data)


def bounds(contest: Contest, data: Interactions, protocol: EvaluationProtocol) -> Iterator[Bound]:
    """Yield the bounds of a contest; only five folds of MovieLens 1M have bounds on time."""
    for pair, peer_side in contest.by_pair.items():
        if pair.library != "surprise":
            continue
        own = contest.own[pair.algorithm, pair.task]
        for name, margin in MARGINS.items():
            value, reference = _shared(own, peer_side, name)
            yield Bound(f"{pair.algorithm} {name} against {pair.model}", value, reference + margin)
    if shape(data) == MOVIELENS_1M and (protocol.split, protocol.folds) == ("folds", 5):
        for (name, task), own in contest.own.items():
            if task == "predict" and name in MAX_S:
                yield Bound(f"{name} seconds of five folds", sum(one.total_s for one in own.seconds), MAX_S[name])


def figures(contest: Contest, plan: ContestPlan, data: Interactions) -> dict[str, Any]:
    """Return all results as plain JSON values."""
    n_users, n_items, n_ratings = shape(data)
    return {
        "data": {"source": data.report.source, "n_users": n_users, "n_items": n_items, "n_ratings": n_ratings},
        "protocol": {
            "split": plan.protocol.split,
            "folds": plan.protocol.n_splits,
            "seed": plan.protocol.seed,
            "threads": plan.threads,
            "clipped_to": [data.rating_min, data.rating_max],
            "relevant": "every held-out interaction of a user with a training rating",
            "listed_users": contest.n_listed,
            "fit_s": "seconds of each fold, without compilation, imports and conversion",
            "difference": "Recollect less the peer, mean over the folds of both",
            "times_less": "the peer to Recollect, of the seconds of fitting and answering over the folds of both",
        },
        "peers": {
            library: {
                "version": peers[0].version,
                "import_s": statistics.mean(one.import_s for one in peers),
                "prepare_s": statistics.mean(one.prepare_s for one in peers),
            }
            for library, peers in contest.peers.items()
        },
        "results": [
            {
                "algorithm": name,
                "ask": task,
                "settings": hyperparameters.as_json(_candidate(plan, name).config),
                **_side(own),
                "peers": [
                    {
                        "library": pair.library,
                        "model": pair.model,
                        "settings": plan.settings(pair, _candidate(plan, name).config),
                        **_side(peer_side),
                        "difference": {
                            measure: value - reference
                            for measure in MEASURES[task]
                            for value, reference in (_shared(own, peer_side, measure),)
                        },
                        **_times_less(own, peer_side),
                    }
                    for pair, peer_side in _against(contest, name, task)
                ],
            }
            for (name, task), own in contest.own.items()
        ],
        "bounds": [
            {"what": one.name, "value": one.value, "most": one.limit, "holds": one.holds}
            for one in bounds(contest, data, plan.protocol)
        ],
    }


def tables(contest: Contest, data: Interactions) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield a title, headings and rows for each task; MovieLens 100K has a column of published figures."""
    is_published = shape(data) == MOVIELENS_100K
    for task, title in _TABLES.items():
        rows = [
            row + (_published(name) if is_published and task == "predict" else [])
            for (name, asked), own in contest.own.items()
            if asked == task
            for row in _rows(contest, name, task, own)
        ]
        if rows:
            compared = [text for name in MEASURES[task] for text in (name, "peer's", "diff")]
            published = ["published"] if is_published and task == "predict" else []
            headings = ["algorithm", "peer", "folds", *compared, "s", "peer's", "times", "of CPU", *published]
            yield title, headings, rows


def verdicts(bounds_found: Iterable[Bound]) -> Iterator[str]:
    """Yield a sentence for each bound."""
    for one in bounds_found:
        yield f"{'holds' if one.holds else 'MISSED'}: {one.name} is {one.value:.4f}, at most {one.limit:.4f}"


def _rows(contest: Contest, name: str, task: Task, own: Side) -> Iterator[list[str]]:
    against = _against(contest, name, task)
    if not against:
        without_peer = [
            text for measure in MEASURES[task] for text in (f"{statistics.mean(own.measures[measure]):.4f}", "", "")
        ]
        yield [name, "", str(len(own.seconds)), *without_peer, _seconds(own, len(own.seconds)), "", "", ""]
    for pair, peer_side in against:
        compared = []
        for measure in MEASURES[task]:
            value, reference = _shared(own, peer_side, measure)
            compared += [f"{value:.4f}", f"{reference:.4f}", f"{value - reference:+.4f}"]
        n, ratios = len(peer_side.seconds), _times_less(own, peer_side)
        seconds = [_seconds(side, n) for side in (own, peer_side)]
        times = [f"{ratios['times_less']:.1f}", f"{ratios['times_less_cpu']:.1f}"]
        yield [name, f"{pair.library} {pair.model}", str(n), *compared, *seconds, *times]


def _seconds(side: Side, n_folds: int) -> str:
    return f"{statistics.mean(one.total_s for one in side.seconds[:n_folds]):.2f}"


def _against(contest: Contest, name: str, task: Task) -> list[tuple[Pair, Side]]:
    return [(pair, side) for pair, side in contest.by_pair.items() if (pair.algorithm, pair.task) == (name, task)]


def _shared(own: Side, peer_side: Side, measure: str) -> tuple[float, float]:
    """Return the means of a measure over the folds of both."""
    n = len(peer_side.seconds)
    return statistics.mean(own.measures[measure][:n]), statistics.mean(peer_side.measures[measure])


def _times_less(own: Side, peer_side: Side) -> dict[str, float]:
    n = len(peer_side.seconds)
    own_seconds = own.seconds[:n]
    return {
        "times_less": sum(one.total_s for one in peer_side.seconds) / sum(one.total_s for one in own_seconds),
        "times_less_cpu": sum(one.total_cpu_s for one in peer_side.seconds)
        / sum(one.total_cpu_s for one in own_seconds),
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "measures": {
            name: {"mean": statistics.mean(values), "folds": values} for name, values in side.measures.items()
        },
        **{name: [getattr(one, name) for one in side.seconds] for name in asdict(side.seconds[0])},
    }


def _candidate(plan: ContestPlan, name: str) -> ConfiguredAlgorithm:
    return next(candidate for candidate in plan.candidates if candidate.name == name)


def _published(name: str) -> list[str]:
    known: Sequence[float] = PUBLISHED_100K.get(name, ())
    return [" / ".join(f"{value:.3f}" for value in known)]
