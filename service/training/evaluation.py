"""Compares algorithms by cross-validation: the same seeded folds for all, the same generator for each one's fit.

Invariant: every rating is predicted exactly once per algorithm, by a model that never saw it; predictions are clipped
to the rating scale of the whole set. The result is a function of data, candidates, folds and seed, apart from seconds
and bytes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.errors import UsageError
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.training import memory
from service.training.algorithms import settings
from service.training.algorithms.registry import Candidate
from service.training.interactions import Interactions, Progress, ReadReport, no_progress
from service.training.measures import RATING_MEASURES, interval95
from service.training.predictions import predict
from service.training.splits import k_fold


@dataclass
class _Outcome:
    """One algorithm's figures, one entry per fold."""

    measures: dict[str, list[float]]
    fit_s: list[float]
    predict_s: list[float]
    model_bytes: list[int]
    peak_bytes: list[int]


def cross_validate(
    data: Interactions, candidates: Sequence[Candidate], *, n_folds: int, seed: int, progress: Progress = no_progress
) -> dict[str, Any]:
    """Measure algorithms on the same folds.

    Args:
        data: the ratings.
        candidates: what to compare, in the order of the result.
        n_folds: how many folds, 2 to the number of ratings.
        seed: decides the folds and everything random in the fits.
        progress: told of the folds of each algorithm.

    Returns:
        `{"data", "protocol", "results"}` as plain JSON values, as docs and DESIGN 3 describe them.

    Raises:
        UsageError: no algorithm, or a number of folds that cannot be.
        TrainingDiverged: a fit failed.
    """
    if not candidates:
        raise UsageError("no algorithm is given to evaluate")
    if not 2 <= n_folds <= len(data):
        raise UsageError(
            f"{len(data)} ratings cannot be cut into {n_folds} folds: there are 2 folds or more, none empty"
        )
    split_seed, *fit_seeds = np.random.SeedSequence(seed).spawn(1 + n_folds)
    outcomes = [_Outcome({name: [] for name in RATING_MEASURES}, [], [], [], []) for _ in candidates]
    for candidate in candidates:
        _warm_up(candidate)
    n_steps, n_done = n_folds * len(candidates), 0
    progress("evaluate", 0, n_steps)
    for fold, (train, test) in enumerate(k_fold(len(data), n_folds, np.random.default_rng(split_seed))):
        known, hidden = data.take(train), data.take(test)
        for candidate, outcome in zip(candidates, outcomes, strict=True):
            _measure(candidate, known, hidden, np.random.default_rng(fit_seeds[fold]), outcome)
            n_done += 1
            progress("evaluate", n_done, n_steps)
    return {
        "data": describe(data),
        "protocol": {
            "split": "random folds over ratings",
            "folds": n_folds,
            "seed": seed,
            "clipped_to": [data.rating_min, data.rating_max],
            "mean": "over the folds",
            "ci95": "of the mean over the folds, Student's t",
            "fit_s": "mean seconds per fold, compilation apart",
            "predict_s": "mean seconds per fold",
            "model_bytes": "mean per fold, history included",
            "peak_bytes": "most resident memory of the process while fitting and predicting, data included",
        },
        "results": [_result(candidate, outcome) for candidate, outcome in zip(candidates, outcomes, strict=True)],
    }


def describe(data: Interactions) -> dict[str, Any]:
    """Return what a data set is, as plain JSON values."""
    return {
        "source": data.report.source,
        "fingerprint": data.fingerprint,
        "n_users": len(data.users),
        "n_items": len(data.items),
        "n_ratings": len(data),
        "bad_rows": data.report.n_bad_rows,
        "duplicates": data.report.n_duplicates,
        "rating_min": data.rating_min,
        "rating_max": data.rating_max,
    }


def _measure(
    candidate: Candidate, known: Interactions, hidden: Interactions, rng: np.random.Generator, outcome: _Outcome
) -> None:
    memory.forget_peak()
    started = time.perf_counter()
    snapshot = candidate.fit(known, candidate.config, rng, no_progress)
    fitted = time.perf_counter()
    predicted = predict(snapshot, hidden.user_rows, hidden.item_rows)
    ended = time.perf_counter()
    outcome.peak_bytes.append(memory.peak_bytes())
    outcome.fit_s.append(fitted - started)
    outcome.predict_s.append(ended - fitted)
    outcome.model_bytes.append(_model_bytes(snapshot))
    for name, measure in RATING_MEASURES.items():
        outcome.measures[name].append(measure(predicted, hidden.ratings))


def _result(candidate: Candidate, outcome: _Outcome) -> dict[str, Any]:
    return {
        "algorithm": candidate.name,
        "settings": settings.as_json(candidate.config),
        "measures": {
            name: {"mean": float(np.mean(folds)), "ci95": list(interval95(folds)), "folds": folds}
            for name, folds in outcome.measures.items()
        },
        "fit_s": float(np.mean(outcome.fit_s)),
        "predict_s": float(np.mean(outcome.predict_s)),
        "model_bytes": round(float(np.mean(outcome.model_bytes))),
        "peak_bytes": max(outcome.peak_bytes),
    }


def _warm_up(candidate: Candidate) -> None:
    """Fit four ratings, so that compiling, or reading the compiled code, is in no measured time."""
    rows = np.arange(4, dtype=np.int32)
    tiny = Interactions(
        users=Vocabulary(["1", "2"]),
        items=Vocabulary(["1", "2"]),
        user_rows=rows // 2,
        item_rows=rows % 2,
        ratings=(1 + rows % 2).astype(np.float32),
        timestamps=None,
        rating_min=1.0,
        rating_max=2.0,
        fingerprint="",
        report=ReadReport(source=""),
    )
    candidate.fit(tiny, candidate.config, np.random.default_rng(0), no_progress)


def _model_bytes(snapshot: ModelSnapshot) -> int:
    """Return how large the arrays are that a replica maps, as the manifest's `model_bytes` counts them."""
    history = snapshot.history
    tables = (snapshot.user_factors, snapshot.item_factors, snapshot.user_bias, snapshot.item_bias, snapshot.popularity)
    names = (*snapshot.users.to_arrays(), *snapshot.items.to_arrays())
    n_pointers = history.indptr.size
    return sum(array.nbytes for array in (*tables, *names, history.data, history.indices)) + 8 * n_pointers
