from collections.abc import Sequence

import numpy as np
import pytest

from service.training.hold_out.list_quality import ListQuality
from service.training.selection.candidates import Candidate
from service.training.selection.choice import CandidateResult, choose

POPULARITY, SVD, IALS = Candidate("popularity"), Candidate("pure_svd"), Candidate("ials")
EASE = Candidate("ease", least_gain=1.05)


def result(candidate: Candidate, by_user: Sequence[float] | None) -> CandidateResult:
    quality = None
    if by_user is not None:
        values = np.asarray(by_user, dtype=np.float64)
        quality = ListQuality(float(values.mean()), 0.0, values, np.zeros((values.size, 20), np.int32))
    return CandidateResult(candidate, quality, 1.0, None if quality else "It failed.")


def spread(mean: float, n: int = 400) -> list[float]:
    """Return values of some users around a mean, the same ones each time."""
    return [mean + 0.1 * value for value in np.random.default_rng(0).standard_normal(n).tolist()]


@pytest.mark.parametrize(
    ("figures", "chosen"),
    [
        ({"pure_svd": 0.30, "ials": 0.32}, "ials"),
        ({"pure_svd": 0.30, "ease": 0.31}, "pure_svd"),  # 3 % better only
        ({"pure_svd": 0.30, "ease": 0.32}, "ease"),
        ({"pure_svd": 0.09, "ials": 0.08, "ease": 0.09}, "popularity"),
        ({"pure_svd": 0.09, "ease": 0.11}, "ease"),
        ({"ease": 0.104}, "popularity"),  # clearly better, by less than it must be
        ({}, "popularity"),
    ],
)
def test_the_best_that_beats_popularity(figures: dict[str, float], chosen: str) -> None:
    """EASE must be better than all others by 5 %, popularity included."""
    by_name = {each.name: each for each in (SVD, IALS, EASE)}
    results = [result(POPULARITY, spread(0.1))]
    results += [result(by_name[name], spread(mean)) for name, mean in figures.items()]
    assert choose(results).candidate.name == chosen


def test_what_may_be_chance_is_not_chosen() -> None:
    """The difference from popularity counts in standard errors over users."""
    rng = np.random.default_rng(1)
    popularity = rng.random(100)
    noise = rng.standard_normal(100)
    noise -= noise.mean()
    slightly = popularity + 0.015 + 0.1 * noise / noise.std(ddof=1)
    clearly = popularity + 0.025 + 0.1 * noise / noise.std(ddof=1)
    results = [result(POPULARITY, popularity.tolist()), result(SVD, slightly.tolist())]
    assert choose(results).candidate == POPULARITY
    assert choose([*results, result(IALS, clearly.tolist())]).candidate == IALS


def test_of_equal_ones_the_cheaper() -> None:
    """The order is that of cost."""
    same = spread(0.3)
    assert choose([result(POPULARITY, spread(0.1)), result(SVD, same), result(IALS, same)]).candidate == SVD


def test_failed_candidates_are_never_chosen() -> None:
    """Nor is there a choice without the baseline's measures."""
    results = [result(POPULARITY, spread(0.1)), result(SVD, None), result(IALS, None)]
    assert choose(results).candidate == POPULARITY
    assert choose([result(POPULARITY, None)]).why == "nothing could be measured"
    assert choose([result(POPULARITY, None)]).candidate == POPULARITY
