"""Measures of a new model on a hold-out, beside those of a simple model: popularity, or the mean rating.

Invariant: the model did not learn the interactions on which it is measured. The quality of lists is measured for models
of both kinds, because lists are what is served.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np

from service.models.snapshot import ModelSnapshot
from service.training.algorithms.registry import ConfiguredAlgorithm, ListTopN
from service.training.evaluation import top_n_lists
from service.training.evaluation.measures.prediction_error import mae, rmse
from service.training.evaluation.measures.relevance import Relevance
from service.training.hold_out.list_quality import NDCG, RECALL, ListQuality, judged, quality
from service.training.hold_out.split import HoldOut
from service.training.interactions import Float64, Interactions, Progress, no_progress

ERRORS: Final = ("rmse", "mae")
NAMES: Final = (*ERRORS, NDCG, RECALL)


@dataclass(frozen=True, eq=False)
class HoldOutMeasures:
    """What a hold-out says about a model.

    Attributes:
        candidate: The algorithm with the settings of the measured model, which a fit may have chosen.
        quality: Of its lists.
        relevance: The users and items by which lists are judged.
        popularity: The quality of lists by popularity.
        errors: RMSE and MAE of a model that predicts ratings, if they differ; else empty.
        rmse_of_mean: The error of the mean rating, of a model that predicts ratings.
        predicted: Float64 (n,), the predictions behind `errors`.
        note: How it was measured, if not by another fit.
    """

    candidate: ConfiguredAlgorithm
    quality: ListQuality
    relevance: Relevance
    popularity: ListQuality
    errors: dict[str, float] = field(default_factory=dict)
    rmse_of_mean: float | None = None
    predicted: Float64 | None = field(default=None, repr=False)
    note: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the measures of a manifest by name; None for one without a meaning."""
        baseline = {NDCG: self.popularity.ndcg}
        if self.rmse_of_mean is not None:
            baseline["rmse"] = self.rmse_of_mean
        return {**dict.fromkeys(NAMES), **self.errors, **self.quality.measures(), "baseline": baseline}


def measure(
    data: Interactions,
    held_out: HoldOut,
    candidate: ConfiguredAlgorithm,
    fit_seed: np.random.SeedSequence,
    progress: Progress,
) -> tuple[HoldOutMeasures, ModelSnapshot | None]:
    """Fit on one side of a hold-out and measure on the other.

    Returns:
        The measures; and the model of all data if the algorithm can be measured without another fit.
    """

    def measuring(_: str, done: int, total: int) -> None:
        progress("measure", done, total)

    rng = np.random.default_rng(fit_seed)
    full_model, predicted, note = None, None, None
    list_top_n: ListTopN
    if candidate.algorithm.fit_measured is not None:
        full_model, list_top_n = candidate.algorithm.fit_measured(
            data, held_out.positions, candidate.config, rng, progress
        )
        progress("measure", 0, 1)
        note = "Each user's list is that of a model without that user's held-out interactions."
    else:
        snapshot = candidate.algorithm.fit(held_out.train, candidate.config, rng, measuring)
        candidate = candidate.with_settings_of(snapshot)
        list_top_n = partial(top_n_lists.top_n_lists, snapshot)
        # If all ratings are equal, errors of predictions have no meaning.
        if candidate.algorithm.kind == "rating" and not data.all_equal:
            hidden = held_out.hidden
            predicted = candidate.algorithm.predict(snapshot, hidden.user_rows, hidden.item_rows)
    relevance = judged(held_out)
    of_lists = quality(list_top_n, relevance)
    if full_model is not None:
        progress("measure", 1, 1)
    errors, rmse_of_mean = {}, None
    if candidate.algorithm.kind == "rating":
        mean = np.full(len(held_out.hidden), held_out.train.ratings.mean(dtype=np.float64))
        rmse_of_mean = rmse(mean, held_out.hidden.ratings)
    if predicted is not None:
        found = {"rmse": rmse(predicted, held_out.hidden.ratings), "mae": mae(predicted, held_out.hidden.ratings)}
        errors = {name: value for name, value in found.items() if np.isfinite(value)}
    measures = HoldOutMeasures(
        candidate, of_lists, relevance, popularity_quality(held_out, relevance), errors, rmse_of_mean, predicted, note
    )
    return measures, full_model


def popularity_quality(held_out: HoldOut, relevance: Relevance) -> ListQuality:
    """Measure the lists by popularity."""
    popularity = ConfiguredAlgorithm.parse("popularity")
    snapshot = popularity.algorithm.fit(held_out.train, popularity.config, np.random.default_rng(0), no_progress)
    return quality(partial(top_n_lists.top_n_lists, snapshot), relevance)
