"""The uncertainty of measures: the bootstrap over users, and randomisation tests that swap two models' labels by user.

Invariants: all measures of all models are resampled with the same draws, so that a difference is one of the same
users; a result is a function of the tallies and the seed. A user is drawn with all ratings in all folds, because those
of one user are correlated. Cost is bounded: more than `MAX_UNITS` users are first assigned at random to that many
clusters of equal size, and clusters are drawn, which keeps the spread of a sum over users.

Sources: Efron and Tibshirani, "An introduction to the bootstrap", 1993 (percentile intervals); Smucker, Allan and
Carterette, "A comparison of statistical significance tests for information retrieval evaluation", CIKM 2007 (Fisher's
randomisation test); Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics
6(2), 1979.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from service.training.evaluation.measures.per_user import Tally, apply_shape
from service.training.interactions import Float64, Int64

MAX_UNITS: Final = 10_000
N_RESAMPLES: Final = 1_000
N_SWAPS: Final = 10_000
_ROWS_AT_ONCE: Final = 250

Folds = Sequence[Tally]
"""One measure of one model: a tally for each fold. The measure is the mean over folds."""


@dataclass(frozen=True, eq=False)
class ResamplingUnits:
    """The units that are drawn: users, or clusters of users."""

    of_user: Int64  # (n_users,), the unit of each user; -1 for users who are never judged
    n: int  # how many there are
    seed: np.random.SeedSequence  # decides the draws

    @classmethod
    def of(
        cls, user_rows: Int64, n_users: int, seed: np.random.SeedSequence, max_units: int = MAX_UNITS
    ) -> "ResamplingUnits":
        """Make at most `max_units` units of the judged users, int64 (m,), each once, of a vocabulary of `n_users`."""
        units = np.arange(user_rows.size)
        n = min(user_rows.size, max_units)
        if n < user_rows.size:
            np.random.default_rng(seed).shuffle(units)
            units %= n
        of_user = np.full(n_users, -1, dtype=np.int64)
        of_user[user_rows] = units
        return cls(of_user, n, seed)

    def sums(self, user_rows: Int64, values: Float64) -> Float64:
        """Return the sum of users' values by unit, float64 (n,)."""
        return np.bincount(self.of_user[user_rows], weights=values, minlength=self.n).astype(np.float64)

    def draws(self) -> Iterator[Float64]:
        """Yield how often each unit is drawn with replacement: float64 (rows, n), `N_RESAMPLES` rows in all."""
        rng, rows = np.random.default_rng(self.seed), _ROWS_AT_ONCE
        for _ in range(0, N_RESAMPLES, rows):
            drawn = rng.integers(0, self.n, size=(rows, self.n)) + np.arange(rows)[:, np.newaxis] * self.n
            yield np.bincount(drawn.ravel(), minlength=rows * self.n).reshape(rows, -1).astype(np.float64)

    def swaps(self) -> Iterator[Float64]:
        """Yield a random sign for each unit: float64 (rows, n), `N_SWAPS` rows in all."""
        rng, rows = np.random.default_rng(self.seed), _ROWS_AT_ONCE
        for _ in range(0, N_SWAPS, rows):
            bits = np.unpackbits(np.frombuffer(rng.bytes(-(-rows * self.n // 8)), dtype=np.uint8))
            yield 1.0 - 2.0 * bits[: rows * self.n].reshape(rows, -1).astype(np.float64)


def bootstrap(units: ResamplingUnits, measures: Mapping[str, Folds]) -> dict[str, Float64]:
    """Return each measure of one model over draws of the users, float64 (N_RESAMPLES,); NaN without a user."""
    tallies = [tally for folds in measures.values() for tally in folds]
    if not units.n or not tallies:
        return {name: np.full(N_RESAMPLES, np.nan) for name in measures}
    sums = np.column_stack([units.sums(tally.user_rows, tally.sums) for tally in tallies])
    counts = np.column_stack([units.sums(tally.user_rows, tally.counts) for tally in tallies])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.concatenate([(draw @ sums) / (draw @ counts) for draw in units.draws()])
    result, start = {}, 0
    for name, folds in measures.items():
        values = [apply_shape(tally.shape, ratios[:, start + index]) for index, tally in enumerate(folds)]
        result[name] = np.asarray(np.mean(values, axis=0), dtype=np.float64)
        start += len(folds)
    return result


def percentile_interval95(values: Float64) -> list[float] | None:
    """Return the middle 95 % of resampled values; None if none is finite."""
    known = values[np.isfinite(values)]
    return [float(end) for end in np.quantile(known, (0.025, 0.975))] if known.size else None


def randomisation_sums(units: ResamplingUnits, measures: Sequence[Folds]) -> tuple[Float64, Float64]:
    """Return the sums that randomisation tests of all pairs of models need.

    Apart from its shape, a measure is a sum of contributions of users: the mean over folds of a user's sum over all
    counts. Swapping the labels of two models for a user changes the sign of the user's contribution to their
    difference. So the difference of models a and b under a swap is column a less column b of the result.

    Args:
        units: Whose labels are swapped.
        measures: One measure of each model, on the same users and counts.

    Returns:
        The sums of contributions, float64 (n_models,), and those with random signs, float64 (N_SWAPS, n_models).
    """
    columns = [
        np.mean([units.sums(tally.user_rows, tally.sums) / tally.counts.sum() for tally in folds], axis=0)
        for folds in measures
    ]
    contributions = np.column_stack(columns)
    return contributions.sum(axis=0), np.concatenate([signs @ contributions for signs in units.swaps()])


def p_value(difference: float, under_swaps: Float64) -> float:
    """Return how often chance gives a difference at least as large, two-sided, at least 1 / (swaps + 1).

    Args:
        difference: The measured one.
        under_swaps: Float64 (n,), the differences under random swaps of the labels.
    """
    # The tolerance makes differences equal that differ by the order of summation only.
    least = abs(difference) - 1e-12 * float(np.max(np.abs(under_swaps), initial=abs(difference)))
    n_as_large = int(np.count_nonzero(np.abs(under_swaps) >= least))
    return (1 + n_as_large) / (1 + under_swaps.size)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values of one family of tests, corrected for their number, in the order given."""
    corrected, largest = [math.nan] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
