"""The result of a contest: figures, tables, and bounds (pure).

A difference is the mean over the folds of both sides, ours less theirs. A ratio of times is theirs to ours.
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
    Ask,
    Pair,
)
from service.training.algorithms import hyperparameters
from service.training.algorithms.registry import Candidate
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.interactions import Interactions

_TABLES: dict[Ask, str] = {"predict": "errors of predicted ratings", "rank": "lists of the full catalogue"}


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
    for pair, theirs in contest.theirs.items():
        if pair.library != "surprise":
            continue
        ours = contest.ours[pair.ours, pair.ask]
        for name, margin in MARGINS.items():
            value, reference = _shared(ours, theirs, name)
            yield Bound(f"{pair.ours} {name} against {pair.theirs}", value, reference + margin)
    if shape(data) == MOVIELENS_1M and (protocol.split, protocol.folds) == ("folds", 5):
        for (name, ask), ours in contest.ours.items():
            if ask == "predict" and name in MAX_S:
                yield Bound(f"{name} seconds of five folds", sum(one.total_s for one in ours.seconds), MAX_S[name])


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
            "difference": "ours less theirs, mean over the folds of both",
            "times_less": "theirs to ours, of the seconds of fitting and answering over the folds of both",
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
                "ask": ask,
                "settings": hyperparameters.as_json(_candidate(plan, name).config),
                **_side(ours),
                "peers": [
                    {
                        "library": pair.library,
                        "model": pair.theirs,
                        "settings": plan.settings(pair, _candidate(plan, name).config),
                        **_side(theirs),
                        "difference": {
                            measure: value - reference
                            for measure in MEASURES[ask]
                            for value, reference in (_shared(ours, theirs, measure),)
                        },
                        **_times_less(ours, theirs),
                    }
                    for pair, theirs in _against(contest, name, ask)
                ],
            }
            for (name, ask), ours in contest.ours.items()
        ],
        "bounds": [
            {"what": one.name, "value": one.value, "most": one.limit, "holds": one.holds}
            for one in bounds(contest, data, plan.protocol)
        ],
    }


def tables(contest: Contest, data: Interactions) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield a title, headings and rows for each task; MovieLens 100K has a column of published figures."""
    is_published = shape(data) == MOVIELENS_100K
    for ask, title in _TABLES.items():
        rows = [
            row + (_published(name) if is_published and ask == "predict" else [])
            for (name, asked), ours in contest.ours.items()
            if asked == ask
            for row in _rows(contest, name, ask, ours)
        ]
        if rows:
            compared = [text for name in MEASURES[ask] for text in (name, "theirs", "diff")]
            published = ["published"] if is_published and ask == "predict" else []
            headings = ["ours", "peer", "folds", *compared, "s", "theirs", "times", "of CPU", *published]
            yield title, headings, rows


def verdicts(bounds_found: Iterable[Bound]) -> Iterator[str]:
    """Yield a sentence for each bound."""
    for one in bounds_found:
        yield f"{'holds' if one.holds else 'MISSED'}: {one.name} is {one.value:.4f}, at most {one.limit:.4f}"


def _rows(contest: Contest, name: str, ask: Ask, ours: Side) -> Iterator[list[str]]:
    against = _against(contest, name, ask)
    if not against:
        without_peer = [
            text for measure in MEASURES[ask] for text in (f"{statistics.mean(ours.measures[measure]):.4f}", "", "")
        ]
        yield [name, "", str(len(ours.seconds)), *without_peer, _seconds(ours, len(ours.seconds)), "", "", ""]
    for pair, theirs in against:
        compared = []
        for measure in MEASURES[ask]:
            value, reference = _shared(ours, theirs, measure)
            compared += [f"{value:.4f}", f"{reference:.4f}", f"{value - reference:+.4f}"]
        n, ratios = len(theirs.seconds), _times_less(ours, theirs)
        seconds = [_seconds(side, n) for side in (ours, theirs)]
        times = [f"{ratios['times_less']:.1f}", f"{ratios['times_less_cpu']:.1f}"]
        yield [name, f"{pair.library} {pair.theirs}", str(n), *compared, *seconds, *times]


def _seconds(side: Side, n_folds: int) -> str:
    return f"{statistics.mean(one.total_s for one in side.seconds[:n_folds]):.2f}"


def _against(contest: Contest, name: str, ask: Ask) -> list[tuple[Pair, Side]]:
    return [(pair, side) for pair, side in contest.theirs.items() if (pair.ours, pair.ask) == (name, ask)]


def _shared(ours: Side, theirs: Side, measure: str) -> tuple[float, float]:
    """Return the means of a measure over the folds of both."""
    n = len(theirs.seconds)
    return statistics.mean(ours.measures[measure][:n]), statistics.mean(theirs.measures[measure])


def _times_less(ours: Side, theirs: Side) -> dict[str, float]:
    n = len(theirs.seconds)
    mine = ours.seconds[:n]
    return {
        "times_less": sum(one.total_s for one in theirs.seconds) / sum(one.total_s for one in mine),
        "times_less_cpu": sum(one.total_cpu_s for one in theirs.seconds) / sum(one.total_cpu_s for one in mine),
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "measures": {
            name: {"mean": statistics.mean(values), "folds": values} for name, values in side.measures.items()
        },
        **{name: [getattr(one, name) for one in side.seconds] for name in asdict(side.seconds[0])},
    }


def _candidate(plan: ContestPlan, name: str) -> Candidate:
    return next(candidate for candidate in plan.candidates if candidate.name == name)


def _published(name: str) -> list[str]:
    known: Sequence[float] = PUBLISHED_100K.get(name, ())
    return [" / ".join(f"{value:.3f}" for value in known)]
