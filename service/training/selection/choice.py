"""Which of several measured candidates is served (pure).

The baseline, popularity, is replaced only by a candidate whose NDCG@10 is larger by more than `CLEARLY` standard errors
of the difference over users: on data without structure one of several candidates is ahead of popularity by chance, and
behind it tomorrow. Of those, the best is taken; a candidate with a least gain must be better than every other candidate
without one by that factor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from service.training.list_quality import ListQuality
from service.training.selection.candidates import BASELINE, Candidate

CLEARLY: Final = 2.0


@dataclass(frozen=True)
class CandidateResult:
    """What became of a candidate.

    Attributes:
        quality: The measures of its lists; None if it was not fitted to the end.
        fit_s: The seconds that the fit and its lists took, or that were spent until it was ended.
        why_not: Why it has no measures, as a sentence.
    """

    candidate: Candidate
    quality: ListQuality | None
    fit_s: float
    why_not: str | None = None

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
    """The chosen candidate, and why."""

    candidate: Candidate
    why: str
    quality: ListQuality | None = field(default=None, repr=False)


def choose(results: Sequence[CandidateResult]) -> Choice:
    """Choose a candidate; the baseline if nothing is measured."""
    measured = {result.candidate.label: result.quality for result in results if result.quality is not None}
    candidate_of = {result.candidate.label: result.candidate for result in results}
    if BASELINE not in measured:
        return Choice(candidate_of.get(BASELINE, Candidate(BASELINE)), "nothing could be measured")
    baseline = measured[BASELINE]
    better = {
        label: quality for label, quality in measured.items() if quality.standard_errors_above(baseline) > CLEARLY
    }
    if not better:
        why = "no other list is clearly better" if len(measured) > 1 else "no other candidate was measured"
        return Choice(candidate_of[BASELINE], why, baseline)
    plain = {label: quality for label, quality in better.items() if candidate_of[label].least_gain == 1}
    reference = max((quality.ndcg for quality in plain.values()), default=baseline.ndcg)
    gaining = {
        label: quality
        for label, quality in better.items()
        if label in plain or quality.ndcg > candidate_of[label].least_gain * reference
    }
    if not gaining:
        return Choice(candidate_of[BASELINE], "no other list is better by enough", baseline)
    # The first of equal ones, which is the cheaper.
    best = max(gaining, key=lambda label: gaining[label].ndcg)
    passed = [label for label in better if better[label].ndcg > gaining[best].ndcg]
    why = "its lists have the largest NDCG@10"
    if passed:
        gain = candidate_of[passed[0]].least_gain
        why += f" except {passed[0]}, which would have to be better by more than {gain - 1:.0%}"
    return Choice(candidate_of[best], why, gaining[best])
