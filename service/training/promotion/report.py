"""The `measures` of a manifest: of the model, of the simple models and of the active model, and the verdict."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.hold_out.list_quality import NDCG, ListQuality
from service.training.hold_out.measures import NAMES, HoldOutMeasures
from service.training.hold_out.split import HoldOut, nothing_held_out
from service.training.promotion.incumbent import Incumbent
from service.training.promotion.list_comparison import compare_lists
from service.training.promotion.verdict import HoldOutResult, errors_lose, lists_lose


def report(
    candidate: ConfiguredAlgorithm,
    held_out: HoldOut | None,
    measured: HoldOutMeasures | None,
    incumbent: Incumbent | None,
    *,
    limit_s: float,
    seed: np.random.SeedSequence,
    others: Sequence[tuple[ConfiguredAlgorithm, ListQuality]] = (),
) -> dict[str, Any]:
    """Return the `measures` of a manifest.

    Args:
        incumbent: The active model; None if there is none to compare with.
        limit_s: How long a fit for the comparison with it may take.
        seed: Decides everything random in that fit.
        others: What else has been measured on the hold-out.
    """
    if held_out is None or measured is None:
        nothing = dict.fromkeys((*NAMES, "baseline", "active", "held_back"))
        return {**nothing, "holdout": nothing_held_out()}
    n = len(held_out.hidden)
    direct, active = None, None
    if incumbent is not None:
        active = incumbent.snapshot.version
        direct = compare_lists(incumbent, candidate, held_out, measured, limit_s=limit_s, seed=seed, others=others)
    reason = lists_lose(
        HoldOutResult(measured.quality.ndcg, measured.popularity.ndcg),
        n,
        active=active,
        recorded=None if incumbent is None else incumbent.recorded(NDCG),
        direct=direct,
    )
    if reason is None and "rmse" in measured.errors and measured.predicted is not None:
        reason = errors_lose(
            HoldOutResult(measured.errors["rmse"], measured.rmse_of_mean),
            n,
            active=active,
            recorded=None if incumbent is None else incumbent.recorded("rmse"),
            direct=None if incumbent is None else incumbent.compare_errors(held_out.hidden, measured.predicted),
        )
    described = held_out.described()
    if measured.note is not None:
        described["note"] = measured.note
    return {
        **measured.as_json(),
        "active": None if direct is None else {"version": active, **direct.as_json()},
        "held_back": reason,
        "holdout": described,
    }
