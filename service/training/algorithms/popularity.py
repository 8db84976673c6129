"""Ranks items by their number of interactions, of all time or of the last days; the list is the same for all users.

The baseline that every other ranking has to beat (Cremonesi, Koren and Turrin, "Performance of recommender algorithms
on top-N recommendation tasks", RecSys 2010). Where tastes move, what was popular in the last days is a much stronger
one (Ji, Sun, Zhang and Li, "A re-visit of the popularity baseline in recommender systems", SIGIR 2020). Items without
an interaction in the window are ordered by the popularity of the snapshot, as all items of equal scores.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np

from service.models.fold_in.settings import FoldIn
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.registry import Algorithm
from service.training.assembly import assemble
from service.training.hyperparameters import Hyperparameters
from service.training.interactions import Interactions, Progress
from service.training.popularity.counts import decayed

NAME: Final = "popularity"


@dataclass(frozen=True)
class PopularityConfig(Hyperparameters):
    """Hyperparameters of popularity."""

    half_life_days: Annotated[
        float | None,
        {"unit": "days", "least": 0.001, "most": 1e6, "search": (1, 3650, "log")},
        "Half-life of an interaction's weight; if none, no decay.",
    ] = None
    window_days: Annotated[
        float | None,
        {"unit": "days", "least": 0.001, "most": 1e6, "search": (1, 365, "log")},
        "Only interactions of so many days before the latest one count; if none, all do.",
    ] = None


def fit(data: Interactions, config: PopularityConfig, _rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Set the bias of an item to log(1 + count), which keeps rare items distinct in float32."""
    progress("fit", 0, 1)
    counts = decayed(data, config.half_life_days or math.inf, config.window_days or math.inf)
    progress("fit", 1, 1)
    return assemble(data, NAME, config, item_bias=np.log1p(counts), fold_in=FoldIn("decayed_sum"))


ALGORITHMS: Final = {NAME: Algorithm(PopularityConfig, fit, kind="ranking")}
