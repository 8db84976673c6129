"""Measures of a new model on a hold-out, and the comparison with the active model.

Invariant: the model did not learn the interactions on which it is measured.
"""

from functools import partial
from typing import Any, Final

import numpy as np

from service.models.snapshot import ModelSnapshot
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.evaluation import measurement, splits, top_n_lists
from service.training.evaluation.measures.prediction_error import rmse
from service.training.incumbent import Incumbent
from service.training.interactions import Float64, Interactions, Progress
from service.training.promotion import HoldOutResult, much_worse

SHARE: Final = 0.1
ERRORS: Final = ("rmse", "mae")
LIST_MEASURES: Final = ("ndcg@10", "recall@20")
# Enough for two significant digits; bounds the time for a million users.
_MAX_USERS: Final = 10_000


def measure(
    data: Interactions,
    candidate: ConfiguredAlgorithm,
    incumbent: Incumbent | None,
    split_seed: np.random.SeedSequence,
    fit_seed: np.random.SeedSequence,
    progress: Progress,
) -> tuple[dict[str, Any], ModelSnapshot | None]:
    """Fit on most of the data and measure on the rest; a measure that cannot be computed is null, with a note.

    Returns:
        The measures, among them `held_back`, why the model must not replace the incumbent; and the model of all data if
        the algorithm can be measured without another fit.
    """
    split = splits.hold_out(len(data), SHARE, np.random.default_rng(split_seed))
    measures: dict[str, Any] = dict.fromkeys((*ERRORS, *LIST_MEASURES))
    if split is None:
        note = "There are too few ratings to set any aside."
        holdout: dict[str, Any] = {"share": SHARE, "n": 0, "note": note}
        return {**measures, "baseline": None, "held_back": None, "holdout": holdout}, None
    train, hidden = (data.take(side) for side in split)

    def measuring(_: str, done: int, total: int) -> None:
        progress("measure", done, total)

    holdout = {"share": SHARE, "n": len(hidden)}
    rng = np.random.default_rng(fit_seed)
    full_model, predicted = None, None
    if candidate.algorithm.fit_measured is not None:
        full_model, list_top_n = candidate.algorithm.fit_measured(data, split[1], candidate.config, rng, progress)
        progress("measure", 0, 1)
        holdout["note"] = "Each user's list is that of a model without that user's held-out interactions."
    else:
        snapshot = candidate.algorithm.fit(train, candidate.config, rng, measuring)
        list_top_n = partial(top_n_lists.top_n_lists, snapshot)
        # If all ratings are equal, errors of predictions have no meaning.
        if candidate.algorithm.kind == "rating" and not data.all_equal:
            predicted = candidate.algorithm.predict(snapshot, hidden.user_rows, hidden.item_rows)
    names = LIST_MEASURES if predicted is None else (*ERRORS, *LIST_MEASURES)
    results = measurement.measure_fitted(list_top_n, predicted, train, hidden, measures=names, most_users=_MAX_USERS)
    measures |= {name: value if np.isfinite(value) else None for name, value in results.items()}
    if full_model is not None:
        progress("measure", 1, 1)
    simple = _simple_model(candidate, train, hidden)
    held_back = None if incumbent is None else _held_back(incumbent, candidate, measures, simple, hidden, predicted)
    return {**measures, "baseline": simple, "held_back": held_back, "holdout": holdout}, full_model


def _simple_model(candidate: ConfiguredAlgorithm, train: Interactions, hidden: Interactions) -> dict[str, float]:
    """Measure the simple model: for ratings their mean, for lists popularity."""
    popularity = ConfiguredAlgorithm.parse("popularity")
    simple = measurement.fit_and_measure(
        popularity, train, hidden, np.random.default_rng(0), measures=("ndcg@10",), most_users=_MAX_USERS
    )
    if candidate.algorithm.kind == "rating":
        mean = np.full(len(hidden), train.ratings.mean(dtype=np.float64))
        simple["rmse"] = float(rmse(mean, hidden.ratings))
    return simple


def _held_back(
    incumbent: Incumbent,
    candidate: ConfiguredAlgorithm,
    measures: dict[str, Any],
    simple: dict[str, float],
    hidden: Interactions,
    predicted: Float64 | None,
) -> str | None:
    name = "rmse" if candidate.algorithm.kind == "rating" else "ndcg@10"
    if measures[name] is None:
        return None
    return much_worse(
        candidate.algorithm.kind,
        HoldOutResult(measures[name], simple[name]),
        len(hidden),
        active=incumbent.snapshot.version,
        recorded=incumbent.recorded_result(candidate.algorithm.kind),
        direct=None if predicted is None else incumbent.compare(hidden, predicted),
    )
