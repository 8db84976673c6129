"""The result of a search, as plain JSON values (pure)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from service.errors import RunError
from service.training import hyperparameters
from service.training.evaluation.comparison import describe_dataset
from service.training.evaluation.evaluation_protocol import SPLIT_DESCRIPTIONS, TIME_SPLITS
from service.training.evaluation.measures.prediction_error import t_interval95
from service.training.interactions import Interactions
from service.training.search.search_space import assignments
from service.training.search.search_spec import SearchOptions, SearchSpec
from service.training.search.study import DefaultsRun, Study, Trial


def ranked(trials: Sequence[Trial], *, lower_is_better: bool) -> list[Trial]:
    """Return the complete trials, best first."""
    complete = [trial for trial in trials if trial.state == "complete"]
    sign = 1 if lower_is_better else -1
    return sorted(complete, key=lambda trial: (sign * trial.mean, trial.number))


def as_json(data: Interactions, spec: SearchSpec, options: SearchOptions, study: Study) -> dict[str, Any]:
    """Return everything about a search, as docs/search.md describes it.

    Raises:
        RunError: No trial is complete.
    """
    trials, protocol = study.trials(), spec.protocol
    order = ranked(trials, lower_is_better=spec.lower_is_better)
    if not order:
        failed = [trial for trial in trials if trial.why is not None]
        reason = f"; the first of {len(failed)} that failed: {failed[0].why}" if failed else "."
        raise RunError(f"No trial came to an end with a value{reason}")
    resolved = hyperparameters.as_json(spec.candidate().config)
    defaults = study.defaults or DefaultsRun(why="not measured")
    in_words = SPLIT_DESCRIPTIONS[protocol.split]
    return {
        "data": describe_dataset(data),
        "algorithm": spec.algorithm,
        "protocol": {
            "measure": spec.measure,
            "direction": "minimize" if spec.lower_is_better else "maximize",
            "split": protocol.split,
            "split_in_words": f"{protocol.folds} {in_words}" if protocol.split == "folds" else in_words,
            "folds": protocol.n_splits,
            "test_share": protocol.test_share if protocol.split in TIME_SPLITS else None,
            "seed": protocol.seed,
            "relevant_from": protocol.relevant_from,
            "most_users": protocol.most_users,
            "method": options.method,
            "pruned": options.prune,
            "ci95": "of the mean over the folds, Student's t",
        },
        "space": {name: dimension.as_json() for name, dimension in spec.space.items()},
        "fixed": {name: value for name, value in resolved.items() if name not in spec.space},
        "defaults": {"settings": {name: resolved[name] for name in spec.space}, **_figures(defaults)},
        "best": {
            **_trial_json(order[0]),
            "assignments": [*spec.fixed, *assignments(order[0].settings)],
            "against_defaults": _difference(order[0].folds, defaults.folds),
        },
        "importance": study.importance(),
        "ranked": [trial.number for trial in order],
        "trials": [_trial_json(trial) for trial in trials],
    }


def _trial_json(trial: Trial) -> dict[str, Any]:
    return {"trial": trial.number, "state": trial.state, "settings": dict(trial.settings), **_figures(trial)}


def _figures(run: Trial | DefaultsRun) -> dict[str, Any]:
    return {
        "mean": float(np.mean(run.folds)) if run.folds else None,
        "ci95": list(t_interval95(run.folds)) if len(run.folds) > 1 else None,
        "folds": list(run.folds),
        "seconds": float(sum(run.seconds)),
        "why": run.why,
    }


def _difference(folds: Sequence[float], others: Sequence[float]) -> dict[str, Any] | None:
    """Return the mean difference on the same folds; None if one of them lacks some."""
    if len(folds) != len(others):
        return None
    differences = np.subtract(folds, others).tolist()
    return {
        "difference": float(np.mean(differences)),
        "ci95": list(t_interval95(differences)) if len(differences) > 1 else None,
    }
