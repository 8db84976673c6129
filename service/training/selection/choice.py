"""Which of several measured candidates is served (pure).

The baseline, popularity, is replaced only by a candidate whose NDCG@10 is larger by more than `CLEARLY` standard errors
of the difference over users: on data without structure one of several candidates is ahead of popularity by chance, and
behind it tomorrow. Of those, the best is taken; a candidate with a least gain must be better than every other candidate
without one by that factor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.hold_out.list_quality import ListQuality
from service.training.selection.candidates import BASELINE, Candidate

CLEARLY: Final = 2.0


@dataclass(frozen=True)
class CandidateResult:
    """What became of a candidate.

    Attributes:
        quality: The measures of its lists; None if it was not fitted to the end.
        fitted: The algorithm with the settings of the measured model, which a fit may have chosen; None likewise.
        fit_s: The seconds that the fit and its lists took, or that were spent until it was ended.
        why_not: Why it has no measures, as a sentence.
    """

    candidate: Candidate
    quality: ListQuality | None
    fit_s: float
    why_not: str | None = None
    fitted: ConfiguredAlgorithm | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the row of a manifest."""
        measures = {} if self.quality is None else self.quality.measures()
        return {
            "algorithm": self.candidate.name,
            "settings": dict(text.split("=", 1) for text in self.candidate.settings),
            "ndcg@10": measures.get("ndcg@10"),
            "recall@20": measures.get("recall@20"),
            "fit_s": round(self.fit_s, 2),
            "why_not": self.why_not,
        }


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, and why.

    Attributes:
        quality: The measures of its lists; None if nothing was measured.
        fitted: The algorithm with the settings of the measured model.
    """

    candidate: Candidate
    why: str
    quality: ListQuality | None = field(default=None, repr=False)
    fitted: ConfiguredAlgorithm | None = None

    def configured(self) -> ConfiguredAlgorithm:
        """Return the algorithm to fit on all data: with the settings that were measured."""
        return self.candidate.configured() if self.fitted is None else self.fitted


def choose(results: Sequence[CandidateResult]) -> Choice:
    """Choose a candidate; the baseline if nothing is measured."""
    measured = [(result, result.quality) for result in results if result.quality is not None]
    baseline, popularity = next((each for each in measured if each[0].candidate.label == BASELINE), (None, None))
    if baseline is None or popularity is None:
        return Choice(Candidate(BASELINE), "nothing could be measured")

    def of_baseline(why: str) -> Choice:
        return Choice(baseline.candidate, why, popularity, baseline.fitted)

    better = [each for each in measured if each[1].standard_errors_above(popularity) > CLEARLY]
    if not better:
        return of_baseline("no other list is clearly better" if len(measured) > 1 else "no other was measured")
    reference = max((quality.ndcg for result, quality in better if result.candidate.least_gain == 1), default=None)
    least = popularity.ndcg if reference is None else reference
    gaining = [
        (result, quality)
        for result, quality in better
        if result.candidate.least_gain == 1 or quality.ndcg > result.candidate.least_gain * least
    ]
    if not gaining:
        return of_baseline("no other list is better by enough")
    # The first of equal ones, which is the cheaper.
    best, quality = max(gaining, key=lambda each: each[1].ndcg)
    passed = [result.candidate for result, other in better if other.ndcg > quality.ndcg]
    why = "its lists have the largest NDCG@10"
    if passed:
        gain = passed[0].least_gain - 1
        why += f" except {passed[0].label}, which would have to be better by more than {gain:.0%}"
    return Choice(best.candidate, why, quality, best.fitted)
