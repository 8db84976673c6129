"""Which algorithm a training fits, named or chosen by `auto`, with its measures on the hold-out.

Invariant: the measures are those of the fitted algorithm and settings on the hold-out of the whole set. What `auto`
chose from some users of a large set is measured again on all of it, and replaced by popularity if it loses there.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from service.models.snapshot import ModelSnapshot
from service.training import memory_budget
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.hold_out.list_quality import ListQuality, judged
from service.training.hold_out.measures import HoldOutMeasures, measure, popularity_quality
from service.training.hold_out.split import HoldOut
from service.training.interactions import Interactions, Progress
from service.training.selection.selection import Selection, select


@dataclass(frozen=True, eq=False)
class MeasuredChoice:
    """What is fitted on all data.

    Attributes:
        candidate: The algorithm with its settings.
        measured: Its measures; None if nothing could be held out.
        fitted: The model of all data, if measuring it made one.
        selection: How `auto` chose it; None if it was named.
    """

    candidate: ConfiguredAlgorithm
    measured: HoldOutMeasures | None
    fitted: ModelSnapshot | None
    selection: Selection | None = None

    def others(self) -> list[tuple[ConfiguredAlgorithm, ListQuality]]:
        """Return what else was measured on the hold-out of the whole set."""
        if self.selection is None or self.selection.n_users is not None:
            return []
        found = [(result.fitted, result.quality) for result in self.selection.results]
        return [(fitted, quality) for fitted, quality in found if fitted is not None and quality is not None]

    def as_json(self, requested: str) -> dict[str, Any]:
        """Return the `selection` of a manifest; `requested` is the name that was given, or "auto"."""
        if self.selection is not None:
            return {"requested": requested, **self.selection.as_json()}
        nothing = dict.fromkeys(("holdout", "budget_s", "took_s", "sampled_users"))
        return {"requested": requested, "chosen": requested, "why": "it was named", "candidates": [], **nothing}


def of_named(
    data: Interactions,
    held_out: HoldOut | None,
    candidate: ConfiguredAlgorithm,
    seed: np.random.SeedSequence,
    progress: Progress,
) -> MeasuredChoice:
    """Measure a named algorithm.

    Raises:
        RunError: It fails, or needs more memory than there is.
    """
    memory_budget.require(candidate.name, candidate.config, len(data), len(data.users), len(data.items))
    if held_out is None:
        return MeasuredChoice(candidate, None, None)
    measured, fitted = measure(data, held_out, candidate, seed, progress)
    return MeasuredChoice(measured.candidate, measured, fitted)


def of_best(
    data: Interactions,
    held_out: HoldOut | None,
    budget_s: float,
    seed: np.random.SeedSequence,
    progress: Progress,
) -> MeasuredChoice:
    """Choose an algorithm, see `selection`, and measure it."""
    choice_seed, measure_seed = seed.spawn(2)
    selection = select(data, held_out, budget_s=budget_s, seed=choice_seed, progress=progress)
    candidate = selection.choice.configured()
    if held_out is None or selection.n_users is None:
        measured = None if held_out is None else _measured_by_selection(selection, held_out)
        return MeasuredChoice(candidate, measured, None, selection)
    found = of_named(data, held_out, candidate, measure_seed, progress)
    if found.measured is not None and found.measured.quality.ndcg < found.measured.popularity.ndcg:
        selection = selection.of_baseline("the choice of the sample loses to popularity on all data")
        found = of_named(data, held_out, selection.choice.configured(), measure_seed, progress)
    return MeasuredChoice(found.candidate, found.measured, found.fitted, selection)


def _measured_by_selection(selection: Selection, held_out: HoldOut) -> HoldOutMeasures | None:
    if selection.choice.quality is None:
        return None
    relevance = judged(held_out)
    return HoldOutMeasures(
        selection.choice.configured(), selection.choice.quality, relevance, popularity_quality(held_out, relevance)
    )
