"""What came of a search, as plain JSON values (pure)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from service.errors import RunError
from service.training.algorithms import hyperparameters
from service.training.evaluation.comparison import describe_dataset
from service.training.evaluation.evaluation_protocol import SPLIT_DESCRIPTIONS, TIME_SPLITS, EvaluationProtocol
from service.training.evaluation.measures.prediction_error import t_interval95
from service.training.interactions import Interactions
from service.training.search.search_request import SearchOptions, SearchSpec
from service.training.search.search_space import assignments
from service.training.search.study import Study, Trial


def ranked(among: Sequence[Trial], *, lower_is_better: bool) -> list[Trial]:
    """Return the complete trials, the best first."""
    complete = [trial for trial in among if trial.state == "complete"]
    sign = 1 if lower_is_better else -1
    return sorted(complete, key=lambda trial: (sign * trial.mean, trial.number))


def as_json(data: Interactions, question: SearchSpec, effort: SearchOptions, study: Study) -> dict[str, Any]:
    """Return everything about a search, as `search` describes it.

    Raises:
        RunError: No trial came to an end with a value.
    """
    known, protocol = study.trials(), question.protocol
    order = ranked(known, lower_is_better=question.lower_is_better)
    if not order:
        failed = [trial for trial in known if trial.why is not None]
        reason = f"; the first of {len(failed)} that failed: {failed[0].why}" if failed else ""
        raise RunError(f"no trial came to an end with a value{reason}")
    resolved = hyperparameters.as_json(question.candidate().config)
    defaults = study.defaults or {"why": "not measured"}
    return {
        "data": describe_dataset(data),
        "algorithm": question.algorithm,
        "protocol": {
            "measure": question.measure,
            "direction": "minimize" if question.lower_is_better else "maximize",
            "split": protocol.split,
            "split_in_words": _in_words(protocol),
            "folds": protocol.n_splits,
            "test_share": protocol.test_share if protocol.split in TIME_SPLITS else None,
            "seed": protocol.seed,
            "relevant_from": protocol.relevant_from,
            "most_users": protocol.most_users,
            "method": effort.method,
            "pruned": effort.prune,
            "ci95": "of the mean over the folds, Student's t",
        },
        "space": {name: dimension.as_json() for name, dimension in question.space.items()},
        "fixed": {name: value for name, value in resolved.items() if name not in question.space},
        "defaults": {"settings": {name: resolved[name] for name in question.space}, **_figures(defaults)},
        "best": {
            **_trial(order[0]),
            "assignments": [*question.fixed, *assignments(order[0].settings)],
            "against_defaults": _difference(order[0].folds, defaults.get("folds", ())),
        },
        "importance": study.importance(),
        "ranked": [trial.number for trial in order],
        "trials": [_trial(trial) for trial in known],
    }


def _in_words(protocol: EvaluationProtocol) -> str:
    words = SPLIT_DESCRIPTIONS[protocol.split]
    return f"{protocol.folds} {words}" if protocol.split == "folds" else words


def _trial(trial: Trial) -> dict[str, Any]:
    figures = _figures({"folds": trial.folds, "seconds": trial.seconds, **({"why": trial.why} if trial.why else {})})
    return {"trial": trial.number, "state": trial.state, "settings": dict(trial.settings), **figures}


def _figures(kept: dict[str, Any]) -> dict[str, Any]:
    folds, seconds = list(kept.get("folds", ())), list(kept.get("seconds", ()))
    return {
        "mean": float(np.mean(folds)) if folds else None,
        "ci95": list(t_interval95(folds)) if len(folds) > 1 else None,
        "folds": folds,
        "seconds": float(sum(seconds)),
        "why": kept.get("why"),
    }


def _difference(folds: Sequence[float], others: Sequence[float]) -> dict[str, Any] | None:
    """Return how much better or worse one is than the other on the same folds; None if one of them lacks some."""
    if len(folds) != len(others):
        return None
    differences = np.subtract(folds, others).tolist()
    return {
        "difference": float(np.mean(differences)),
        "ci95": list(t_interval95(differences)) if len(differences) > 1 else None,
    }
