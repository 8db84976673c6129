"""The figures of one algorithm, split by split, and their summary.

Invariant: on one split all algorithms are judged by the same users and items, those of its `PreparedSplit`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np

from service.errors import TrainingDiverged, UsageError
from service.models.files import artefact
from service.training import hyperparameters
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.evaluation import leakage, peak_memory, resampling
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.evaluation.measures import per_user, prediction_error, sampled_ranking, serving_cost, subgroups
from service.training.evaluation.measures.beyond_accuracy import Lists, Popularity
from service.training.evaluation.measures.per_user import MeasureName, Tally
from service.training.evaluation.measures.relevance import Relevance, relevant_items
from service.training.evaluation.split_dataset import Split
from service.training.evaluation.top_n_lists import top_n_lists
from service.training.interactions import Float64, no_progress

# With lists of the whole catalogue each of these is equal for all models.
NEED_SHORT_LISTS: Final = ("precision", "recall", "hit_rate", "coverage", "gini", "novelty", "popularity_bias")


GroupFigures: TypeAlias = dict[str, dict[str, Any]]
"""By group, then by figure, such as "rmse"."""


@dataclass(frozen=True, eq=False)
class PreparedSplit:
    """One split, with the seed, users and items that all algorithms share."""

    split: Split
    fit_seed: np.random.SeedSequence  # seeds each fit
    ks: tuple[int, ...]  # lengths of lists, ascending
    relevance: Relevance  # the judged users and their relevant items
    popularity: Popularity  # of the training side
    user_groups: subgroups.Groups  # (n_users,)
    item_groups: subgroups.Groups  # (n_items,)
    negatives: Lists | None  # int32 (judged users, n), the items to rank among; None without sampled measures
    has_errors: bool = True  # whether errors of predicted ratings are meaningful

    @classmethod
    def of(cls, split: Split, protocol: EvaluationProtocol, index: int, *, has_errors: bool = True) -> "PreparedSplit":
        """Prepare the split with an index.

        Raises:
            UsageError: No held-out item is relevant.
        """
        seeds = protocol.seeds()
        relevance = relevant_items(split.test, relevant_from=protocol.relevant_from)
        if not len(relevance):
            raise UsageError("No held-out item is relevant, so that no list can be judged.")
        relevance = relevance.sample(protocol.most_users, np.random.default_rng(seeds.users[index]))
        negatives = None
        if protocol.n_negatives is not None:
            rng = np.random.default_rng(seeds.negatives[index])
            negatives = sampled_ranking.sample_negatives(split.train, relevance, protocol.n_negatives, rng)
        return cls(
            split=split,
            fit_seed=seeds.fits[index],
            ks=protocol.ks,
            relevance=relevance,
            popularity=Popularity.of(split.train),
            user_groups=subgroups.user_groups(split.train),
            item_groups=subgroups.item_groups(split.train),
            negatives=negatives,
            has_errors=has_errors,
        )


@dataclass
class AlgorithmResult:
    """The figures of one algorithm, one entry per split."""

    candidate: ConfiguredAlgorithm
    label: str  # its name, unique in the comparison
    by_user: dict[str, list[Tally]] = field(default_factory=dict)  # measures that are means over users
    of_all_lists: dict[str, list[float | None]] = field(default_factory=dict)  # measures of all lists together
    groups: list[dict[str, GroupFigures]] = field(default_factory=list)  # of "users" and "items"
    fit_s: list[float] = field(default_factory=list)
    predict_s: list[float] = field(default_factory=list)  # empty for an algorithm that only ranks
    rank_s: list[float] = field(default_factory=list)  # for the lists of all judged users and their measures
    model_bytes: list[int] = field(default_factory=list)  # the size of the arrays that a replica maps
    peak_bytes: list[int] = field(default_factory=list)  # most resident memory while fitting and predicting
    learning_curves: list[list[dict[str, float]]] = field(default_factory=list)  # each empty without epochs
    n_leaked: int = 0  # held-out pairs in the model's history, over all splits
    cost: serving_cost.ServingCost | None = None  # on the first split; None before it
    failure: str | None = None  # the reason for having no figures, as a sentence; None without a failure
    _names: list[str] = field(default_factory=list)

    def as_failed(self, why: str) -> "AlgorithmResult":
        """Return a result with a failure and no figures, since figures of some splits cannot be compared."""
        return AlgorithmResult(self.candidate, self.label, failure=why)

    def measure(self, prepared: PreparedSplit) -> None:
        """Fit on one side of a split, measure on the other, and add the figures.

        Raises:
            TrainingDiverged: The fit failed.
        """
        candidate, (train, test), relevance, ks = self.candidate, prepared.split, prepared.relevance, prepared.ks
        peak_memory.reset_peak()
        started = time.perf_counter()
        snapshot = candidate.algorithm.fit(
            train, candidate.config, np.random.default_rng(prepared.fit_seed), no_progress
        )
        self.fit_s.append(time.perf_counter() - started)
        self.learning_curves.append(list(snapshot.learning_curve))
        predicted = None
        if candidate.algorithm.kind == "rating":
            started = time.perf_counter()
            predicted = candidate.algorithm.predict(snapshot, test.user_rows, test.item_rows)
            if not np.isfinite(predicted).all():
                raise TrainingDiverged(f"{candidate.name} predicts ratings that are not finite.")
            self.predict_s.append(time.perf_counter() - started)
        self.peak_bytes.append(peak_memory.peak_bytes())
        self.model_bytes.append(artefact.size_bytes(snapshot))
        self.n_leaked += leakage.n_in_history(snapshot.history, test)

        started = time.perf_counter()
        if not prepared.has_errors:
            predicted = None
        n_items = len(train.items)
        names = [name for name in per_user.all_measures(ks) if not _is_constant(name, n_items)]
        lists = top_n_lists(snapshot, relevance.user_rows, ks[-1])
        rankings = per_user.ranking_tallies(names, lists, relevance)
        rankings["mrr"] = rankings[f"mrr@{ks[-1]}"]
        exposures, of_all_lists = per_user.exposure_tallies(names, lists, relevance.user_rows, prepared.popularity)
        self.rank_s.append(time.perf_counter() - started)

        errors = {} if predicted is None else per_user.error_tallies(predicted, test)
        self._add(errors | rankings | exposures, of_all_lists)
        if prepared.negatives is not None:
            sampled = sampled_ranking.rank_among(snapshot, relevance, prepared.negatives, ks[-1])
            n_negatives = prepared.negatives.shape[1]
            self._add(sampled_ranking.sampled_tallies(sampled, relevance, ks, n_negatives), {})
        self.groups.append(
            {
                "users": subgroups.by_user_group(errors, rankings, prepared.user_groups, ks[0]),
                "items": subgroups.by_item_group(predicted, test, lists, relevance, prepared.item_groups, ks[0]),
            }
        )
        has_errors = candidate.algorithm.kind == "rating"
        self._names = [str(name) for name in per_user.all_measures(ks) if has_errors or not name.is_error]
        if self.cost is None:
            self.cost = serving_cost.measure(candidate, snapshot, relevance.user_rows)

    def _add(self, by_user: Mapping[str, Tally], of_all_lists: Mapping[str, float | None]) -> None:
        for name, tally in by_user.items():
            self.by_user.setdefault(name, []).append(tally)
        for name, value in of_all_lists.items():
            self.of_all_lists.setdefault(name, []).append(value)

    def as_json(self, resampled: Mapping[str, Float64]) -> dict[str, Any]:
        """Return the summary as plain JSON values, with intervals from `resampling.bootstrap`."""
        return {
            "algorithm": self.candidate.name,
            "label": self.label,
            "kind": self.candidate.algorithm.kind,
            "settings": hyperparameters.as_json(self.candidate.config),
            "measures": self._measures(resampled),
            "groups": {side: _over_splits([split[side] for split in self.groups]) for side in ("users", "items")},
            "fit_s": mean(self.fit_s),
            "predict_s": mean(self.predict_s),
            "rank_s": mean(self.rank_s),
            "model_bytes": round(mean(self.model_bytes) or 0),
            "peak_bytes": max(self.peak_bytes, default=0),
            "failed": self.failure,
            "list_us": None if self.cost is None else self.cost.list_us,
            "pairwise_list_us": None if self.cost is None else self.cost.pairwise_list_us,
            "learning_curves": self.learning_curves,
        }

    def _measures(self, resampled: Mapping[str, Float64]) -> dict[str, dict[str, Any]]:
        measures: dict[str, dict[str, Any]] = {}
        for name, tallies in self.by_user.items():
            values = [tally.value() for tally in tallies]
            # The interval of an error is over the folds, as is usual; that of a list over the users, who are many more.
            is_over_folds = name in prediction_error.RATING_MEASURES and len(values) > 1
            interval = _over_folds(values) if is_over_folds else resampling.percentile_interval95(resampled[name])
            measures[name] = {"mean": mean(values), "ci95": interval, "folds": values}
        for name, totals in self.of_all_lists.items():
            measures[name] = {"mean": mean(totals), "ci95": _over_folds(totals), "folds": totals}
        if self.failure is None:
            undefined: dict[str, Any] = {"mean": None, "ci95": None, "folds": [None] * len(self.fit_s)}
            for name in self._names:
                measures.setdefault(name, undefined)
        return measures


def _is_constant(name: MeasureName, n_items: int) -> bool:
    return name.family in NEED_SHORT_LISTS and name.k is not None and name.k >= n_items


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the defined values; None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _over_folds(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return list(prediction_error.t_interval95(known)) if len(known) > 1 else None


def _over_splits(splits: Sequence[GroupFigures]) -> GroupFigures:
    """Return the mean over splits of every figure of every group; "n" is rounded."""
    if not splits:
        return {}
    means = {
        group: {name: mean([split[group][name] for split in splits]) for name in figures}
        for group, figures in splits[0].items()
    }
    return {group: figures | {"n": round(figures["n"] or 0)} for group, figures in means.items()}
