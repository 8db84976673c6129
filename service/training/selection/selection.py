"""Fits the candidates of `auto` on one side of a hold-out, measures their lists on the other, and chooses one.

Invariants: every candidate is judged on the same hold-out. The baseline is always measured. No candidate begins whose
estimated cost exceeds what is left of the budget, and one that turns out to cost more is ended (`cost_limit`). A
candidate that fails costs its own row.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np

from service.errors import RecollectError
from service.models.vocabulary import Vocabulary
from service.training import memory_budget
from service.training.evaluation.measures.relevance import Relevance
from service.training.evaluation.top_n_lists import top_n_lists
from service.training.hold_out.list_quality import judged, quality
from service.training.hold_out.split import HoldOut, hold_out, nothing_held_out
from service.training.interactions import Interactions, Progress
from service.training.selection.candidates import BASELINE, CANDIDATES, Candidate, adapted
from service.training.selection.choice import CandidateResult, Choice, choose
from service.training.selection.cost_limit import CostLimit, over_budget

# Sets of more interactions are represented by some of their users, so that a selection costs the same for any size.
_MOST_ROWS: Final = 2_000_000
# A budget is for so many interactions, or so many items. Other sets get their share of it, within bounds.
_BUDGET_ROWS: Final = 1_000_000
_BUDGET_ITEMS: Final = 4_000
_MOST_SHARE: Final = 5.0
_LEAST_SHARE: Final = 0.15


@dataclass(frozen=True)
class Selection:
    """How a model came to be chosen.

    Attributes:
        results: The candidates, in the order in which they were tried.
        choice: The chosen one.
        budget_s: How long the candidates could take together.
        held_out: What they were judged on; None if the set is too small.
        n_users: How many users represented the set; None for all.
    """

    results: tuple[CandidateResult, ...]
    choice: Choice
    budget_s: float
    held_out: HoldOut | None
    n_users: int | None

    def of_baseline(self, why: str) -> "Selection":
        """Return the selection with the baseline as its choice."""
        return replace(self, choice=Choice(Candidate(BASELINE), why))

    def as_json(self) -> dict[str, Any]:
        """Return the `selection` of a manifest, without what was requested."""
        return {
            "chosen": self.choice.candidate.label,
            "why": self.choice.why,
            "candidates": [result.as_json() for result in self.results],
            "holdout": nothing_held_out() if self.held_out is None else self.held_out.described(),
            "budget_s": round(self.budget_s, 1),
            "took_s": round(sum(result.fit_s for result in self.results), 2),
            "sampled_users": self.n_users,
        }


def budget_for(n_rows: int, n_items: int, budget_s: float) -> float:
    """Return the time that a set gets, from the time for a million interactions or 4,000 items.

    The cost of few items grows with their pairs; of many items only some pairs occur.
    """
    by_items = n_items / _BUDGET_ITEMS
    return budget_s * min(_MOST_SHARE, max(_LEAST_SHARE, n_rows / _BUDGET_ROWS, min(by_items, by_items**2)))


def select(
    data: Interactions,
    whole: HoldOut | None,
    *,
    budget_s: float,
    seed: np.random.SeedSequence,
    progress: Progress,
    candidates: Sequence[Candidate] = CANDIDATES,
    most_rows: int = _MOST_ROWS,
    clock: Callable[[], float] = time.monotonic,
) -> Selection:
    """Choose an algorithm for a set.

    Args:
        whole: The hold-out of the whole set, which also judges the candidates if the set is small enough.
        budget_s: How long fits and lists of all candidates may take together.
        seed: Decides the users of a sample and everything random in the fits.
        progress: Called with the stage "choose", and the candidates that are done.
    """
    sample_seed, fit_seed = seed.spawn(2)
    held_out, n_users = whole, None
    if whole is not None and len(data) > most_rows:
        sample = sampled_users(data, most_rows, np.random.default_rng(sample_seed))
        held_out, n_users = hold_out(sample, np.random.default_rng(sample_seed)), len(sample.users)
    if held_out is None:
        only = CandidateResult(Candidate(BASELINE), None, 0.0, "Too few interactions can be held out.")
        return Selection((only,), choose([only]), budget_s, None, n_users)
    relevance = judged(held_out)
    results: list[CandidateResult] = []
    started_s = clock()
    has_times = data.timestamps is not None
    candidates = [each for each in candidates if has_times or not each.is_of_times]
    for number, each in enumerate(candidates):
        progress("choose", number, len(candidates))
        ndcg_of = {result.candidate.label: result.quality.ndcg for result in results if result.quality is not None}
        candidate = adapted(each, ndcg_of, has_times=has_times)
        left_s = budget_s - (clock() - started_s)
        # The baseline costs next to nothing, and nothing could be compared without it.
        limit_s = float("inf") if candidate.label == BASELINE else left_s
        results.append(_measured(candidate, held_out, relevance, limit_s, fit_seed, clock))
    progress("choose", len(candidates), len(candidates))
    return Selection(tuple(results), choose(results), budget_s, held_out, n_users)


def _measured(
    candidate: Candidate,
    held_out: HoldOut,
    relevance: Relevance,
    limit_s: float,
    seed: np.random.SeedSequence,
    clock: Callable[[], float],
) -> CandidateResult:
    began_s = clock()

    def unmeasured(why: str) -> CandidateResult:
        return CandidateResult(candidate, None, clock() - began_s, why)

    if limit_s <= 0:
        return unmeasured("The time was used up.")
    try:
        configured = candidate.configured()
        train = held_out.train
        if (estimated_s := candidate.estimated_s(train)) > limit_s:
            most = "" if candidate.is_compiled() else ", the first compilation of its kernels included"
            return unmeasured(over_budget(estimated_s, limit_s, most))
        memory_budget.require(candidate.name, configured.config, len(train), len(train.users), len(train.items))
        limited = CostLimit(limit_s, lambda *_: None, clock)
        snapshot = configured.algorithm.fit(train, configured.config, np.random.default_rng(seed), limited)
        measured = quality(partial(top_n_lists, snapshot), relevance)
    except RecollectError as error:
        return unmeasured(str(error))
    except MemoryError:
        return unmeasured("It needs more memory than there is.")
    return CandidateResult(candidate, measured, clock() - began_s, fitted=configured.with_settings_of(snapshot))


def sampled_users(data: Interactions, most_rows: int, rng: np.random.Generator) -> Interactions:
    """Return all interactions of users drawn at random, about `most_rows` of them; the items are those of the set."""
    lengths = np.bincount(data.user_rows, minlength=len(data.users))
    drawn = rng.permutation(len(data.users))
    n_users = max(1, int(np.searchsorted(np.cumsum(lengths[drawn]), most_rows, side="right")))
    # In the order of the set, so that a sample of all users is the set.
    users = np.sort(drawn[:n_users])
    row_of = np.full(len(data.users), -1, dtype=np.int32)
    row_of[users] = np.arange(users.size, dtype=np.int32)
    taken = data.take(np.flatnonzero(row_of[data.user_rows] >= 0))
    return replace(
        taken,
        users=Vocabulary([data.users.id_of[row] for row in users.tolist()]),
        user_rows=row_of[taken.user_rows],
    )
