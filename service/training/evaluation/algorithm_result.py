"""What one algorithm did on each split of a comparison, and what that says in the end.

Invariant: all that algorithms share of a split, whom and what they are judged by, is in one `PreparedSplit`, made once.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from service.errors import TrainingDiverged, UsageError
from service.models import artefact
from service.training.algorithms import hyperparameters
from service.training.algorithms.registry import Candidate
from service.training.evaluation import leakage, peak_memory, resampling, top_n_lists
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.evaluation.measures import per_user, prediction_error, sampled_ranking, serving_cost, subgroups
from service.training.evaluation.measures.beyond_accuracy import Lists, Popularity
from service.training.evaluation.measures.per_user import Float64, MeasureName, Tally
from service.training.evaluation.measures.relevance import Relevance, relevant
from service.training.evaluation.split_dataset import Split
from service.training.interactions import no_progress

# Of lists that hold the whole catalogue each of these is the same for every model.
ALL_SHOWN: Final = ("precision", "recall", "hit_rate", "coverage", "gini", "novelty", "popularity_bias")


@dataclass(frozen=True, eq=False)
class PreparedSplit:
    """What all algorithms share of one split.

    Attributes:
        split: The two sides.
        fit_seed: Begins the generator of each fit.
        ks: Lengths of lists, ascending.
        relevance: The users whose lists are judged, and their relevant items.
        popularity: What the training side says about items and profiles.
        user_groups: Int8 (n_users,).
        item_groups: Int8 (n_items,).
        negatives: Int32 (judged users, n), the items to rank among; None where no sampled measure is asked for.
        has_errors: Whether errors of predicted ratings mean anything.
    """

    split: Split
    fit_seed: np.random.SeedSequence
    ks: tuple[int, ...]
    relevance: Relevance
    popularity: Popularity
    user_groups: subgroups.Groups
    item_groups: subgroups.Groups
    negatives: Lists | None
    has_errors: bool = True

    @classmethod
    def of(cls, split: Split, protocol: EvaluationProtocol, index: int, *, has_errors: bool = True) -> "PreparedSplit":
        """Prepare a split.

        Args:
            split: The two sides.
            protocol: What to measure.
            index: Which of the splits it is.
            has_errors: Whether errors of predicted ratings mean anything.

        Raises:
            UsageError: No held-out item is relevant.
        """
        seeds = protocol.seeds()
        relevance = relevant(split.test, relevant_from=protocol.relevant_from)
        if not len(relevance):
            raise UsageError("no held-out item is relevant, so that no list can be judged")
        relevance = relevance.sample(protocol.most_users, np.random.default_rng(seeds.users[index]))
        drawn = None
        if protocol.n_negatives is not None:
            rng = np.random.default_rng(seeds.negatives[index])
            drawn = sampled_ranking.sample_negatives(split.train, relevance, protocol.n_negatives, rng)
        return cls(
            split=split,
            fit_seed=seeds.fits[index],
            ks=protocol.ks,
            relevance=relevance,
            popularity=Popularity.of(split.train),
            user_groups=subgroups.user_groups(split.train),
            item_groups=subgroups.item_groups(split.train),
            negatives=drawn,
            has_errors=has_errors,
        )


@dataclass
class Outcome:
    """One algorithm's figures, one entry per split.

    Attributes:
        candidate: The algorithm with its settings.
        label: Its name, made different from others' of the same comparison.
        by_user: Measures that are made of users.
        together: Measures of all lists together.
        groups: Of "users" and "items", by group and figure.
        fit_s: seconds.
        predict_s: Seconds; empty for an algorithm that ranks only.
        rank_s: Seconds for the lists of all judged users and their measures.
        model_bytes: What a replica would map.
        peak_bytes: Most resident memory while fitting and predicting.
        n_leaked: Held-out pairs that a model says it has seen, over all splits.
        cost: What lists cost, on the first split; None before it.
        failed: Why there are no figures; None as long as there are.
    """

    candidate: Candidate
    label: str
    by_user: dict[str, list[Tally]] = field(default_factory=dict)
    together: dict[str, list[float | None]] = field(default_factory=dict)
    groups: list[dict[str, dict[str, dict[str, Any]]]] = field(default_factory=list)
    fit_s: list[float] = field(default_factory=list)
    predict_s: list[float] = field(default_factory=list)
    rank_s: list[float] = field(default_factory=list)
    model_bytes: list[int] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    n_leaked: int = 0
    cost: serving_cost.ServingCost | None = None
    failed: str | None = None
    _names: list[str] = field(default_factory=list)

    def fail(self, why: str) -> None:
        """Give the algorithm up: what was measured of it so far is of other splits than the others' figures."""
        self.failed = why
        self.by_user.clear()
        self.together.clear()
        self.groups.clear()
        for seconds in (self.fit_s, self.predict_s, self.rank_s):
            seconds.clear()
        for n_bytes in (self.model_bytes, self.peak_bytes):
            n_bytes.clear()
        self.cost, self.n_leaked = None, 0

    def measure(self, bench: PreparedSplit) -> None:
        """Fit on one side of a split, judge by the other, and add the figures.

        Raises:
            TrainingDiverged: The fit failed.
        """
        candidate, (train, test), relevance, ks = self.candidate, bench.split, bench.relevance, bench.ks
        peak_memory.reset_peak()
        started = time.perf_counter()
        snapshot = candidate.fit(train, candidate.config, np.random.default_rng(bench.fit_seed), no_progress)
        self.fit_s.append(time.perf_counter() - started)
        predicted = None
        if candidate.kind == "rating":
            started = time.perf_counter()
            predicted = candidate.predict(snapshot, test.user_rows, test.item_rows)
            if not np.isfinite(predicted).all():
                raise TrainingDiverged(f"{candidate.name} predicts ratings that are not finite")
            self.predict_s.append(time.perf_counter() - started)
        self.peak_bytes.append(peak_memory.peak_bytes())
        self.model_bytes.append(artefact.size_bytes(snapshot))
        self.n_leaked += leakage.in_history(snapshot.history, test)

        started = time.perf_counter()
        if not bench.has_errors:
            predicted = None
        n_items = len(train.items)
        names = [name for name in per_user.all_measures(ks) if not _says_nothing(name, n_items)]
        listed = top_n_lists.top_n_lists(snapshot, relevance.user_rows, ks[-1])
        ranked = per_user.ranking_tallies(names, listed, relevance)
        ranked["mrr"] = ranked[f"mrr@{ks[-1]}"]
        shown, together = per_user.exposure_tallies(names, listed, relevance.user_rows, bench.popularity)
        self.rank_s.append(time.perf_counter() - started)

        errors = {} if predicted is None else per_user.error_tallies(predicted, test)
        self._add(errors | ranked | shown, together)
        if bench.negatives is not None:
            among = sampled_ranking.rank_among(snapshot, relevance, bench.negatives, ks[-1])
            self._add(sampled_ranking.sampled_tallies(among, relevance, ks, bench.negatives.shape[1]), {})
        self.groups.append(
            {
                "users": subgroups.by_user_group(errors, ranked, bench.user_groups, ks[0]),
                "items": subgroups.by_item_group(predicted, test, listed, relevance, bench.item_groups, ks[0]),
            }
        )
        has_errors = self.candidate.kind == "rating"
        self._names = [str(name) for name in per_user.all_measures(ks) if has_errors or not name.is_error]
        if self.cost is None:
            self.cost = serving_cost.measure(candidate, snapshot, relevance.user_rows)

    def _add(self, by_user: Mapping[str, Tally], together: Mapping[str, float | None]) -> None:
        for name, tally in by_user.items():
            self.by_user.setdefault(name, []).append(tally)
        for name, value in together.items():
            self.together.setdefault(name, []).append(value)

    def result(self, drawn: Mapping[str, Float64]) -> dict[str, Any]:
        """Return what to say of the algorithm, as plain JSON values.

        Args:
            drawn: Its measures over draws of the users, see `resampling.resampled`.
        """
        return {
            "algorithm": self.candidate.name,
            "label": self.label,
            "kind": self.candidate.kind,
            "settings": hyperparameters.as_json(self.candidate.config),
            "measures": self._measures(drawn),
            "groups": {side: _over_splits([split[side] for split in self.groups]) for side in ("users", "items")},
            "fit_s": mean(self.fit_s),
            "predict_s": mean(self.predict_s),
            "rank_s": mean(self.rank_s),
            "model_bytes": round(mean(self.model_bytes) or 0),
            "peak_bytes": max(self.peak_bytes, default=0),
            "failed": self.failed,
            "list_us": None if self.cost is None else self.cost.list_us,
            "pairwise_list_us": None if self.cost is None else self.cost.pairwise_list_us,
        }

    def _measures(self, drawn: Mapping[str, Float64]) -> dict[str, dict[str, Any]]:
        measured: dict[str, dict[str, Any]] = {}
        for name, by_split in self.by_user.items():
            values = [tally.value() for tally in by_split]
            # Folds are the repetition that errors are usually given with; for lists it is users, who are many more.
            is_by_fold = name in prediction_error.RATING_MEASURES and len(values) > 1
            interval = _over_folds(values) if is_by_fold else resampling.percentile_interval95(drawn[name])
            measured[name] = {"mean": mean(values), "ci95": interval, "folds": values}
        for name, totals in self.together.items():
            measured[name] = {"mean": mean(totals), "ci95": _over_folds(totals), "folds": totals}
        if self.failed is None:
            nothing: dict[str, Any] = {"mean": None, "ci95": None, "folds": [None] * len(self.fit_s)}
            for name in self._names:
                measured.setdefault(name, nothing)
        return measured


def _says_nothing(name: MeasureName, n_items: int) -> bool:
    return name.family in ALL_SHOWN and name.k is not None and name.k >= n_items


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is defined; None if nothing is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _over_folds(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return list(prediction_error.t_interval95(known)) if len(known) > 1 else None


def _over_splits(splits: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the mean over splits of every figure of every group; of "n" to the nearest whole number."""
    if not splits:
        return {}
    means = {
        group: {name: mean([split[group][name] for split in splits]) for name in figures}
        for group, figures in splits[0].items()
    }
    return {group: figures | {"n": round(figures["n"] or 0)} for group, figures in means.items()}
