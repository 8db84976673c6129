"""The evaluation protocol: which ratings are held out, and how models are measured on them.

Invariant: a protocol is valid as far as that can be checked without the data; `split_dataset` checks the rest.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from service.declared_settings import enumerated
from service.errors import UsageError
from service.training.evaluation.measures.per_user import MAX_K

CANONICAL_FOLDS: Final = tuple(f"u{number}" for number in range(1, 6))

SPLIT_DESCRIPTIONS: Final = {
    "folds": "random folds over ratings",
    "leave-one-out": "the last interaction of each user",
    "time": "the latest share of all interactions",
    "time-per-user": "the latest share of each user's interactions",
    "canonical": "MovieLens 100K's own folds u1 to u5",
    "given": "a given test set",
}
TIME_SPLITS: Final = {"time", "time-per-user"}


@dataclass(frozen=True)
class EvaluationProtocol:
    """How models are judged.

    Raises:
        UsageError: A value is out of range.
    """

    split: str = "folds"  # a name of `SPLIT_DESCRIPTIONS`
    folds: int = 5  # of the split "folds"
    test_share: float = 0.2  # the held-out share of the splits by time, between 0 and 1
    seed: int = 0  # decides everything random: the folds, the fits, the samples and the resampling
    ks: tuple[int, ...] = (10, 20)  # lengths of the lists that ranking measures judge, ascending
    relevant_from: float | None = None  # the least rating of a relevant item; None: every held-out item is relevant
    most_users: int | None = None  # judge the lists of at most so many users, chosen at random; None: all
    n_negatives: int | None = None  # also rank among so many unseen items sampled for each user; None: do not

    def __post_init__(self) -> None:
        if self.split not in SPLIT_DESCRIPTIONS:
            splits = enumerated(list(SPLIT_DESCRIPTIONS))
            raise UsageError(f"There is no split {self.split!r}; the splits are {splits}.")
        if self.folds < 2:
            raise UsageError(f"A dataset cannot be split into {self.folds} folds: there are 2 or more.")
        if not 0 < self.test_share < 1:
            raise UsageError(f"The test share must be between 0 and 1, not {self.test_share:g}.")
        if not self.ks or list(self.ks) != sorted(set(self.ks)) or not 1 <= self.ks[0] <= self.ks[-1] <= MAX_K:
            raise UsageError(f"Lengths of lists are different whole numbers from 1 to {MAX_K}, ascending.")
        for name, value in (("judged users", self.most_users), ("sampled items", self.n_negatives)):
            if value is not None and value < 1:
                raise UsageError(f"The number of {name} must be at least 1, not {value}.")

    @property
    def n_splits(self) -> int:
        """How many splits there are."""
        return {"folds": self.folds, "canonical": len(CANONICAL_FOLDS)}.get(self.split, 1)

    def seeds(self) -> "Seeds":
        """Return the independent seeds that are derived from `seed`."""
        n = self.n_splits
        split, *fits = np.random.SeedSequence(self.seed).spawn(1 + n)
        users, negatives, resampling = np.random.SeedSequence([self.seed, 1]).spawn(3)
        return Seeds(split, tuple(fits), tuple(users.spawn(n)), tuple(negatives.spawn(n)), resampling)


class Seeds(NamedTuple):
    """One seed for each random part, so that none depends on how much another draws; a tuple has one per split."""

    split: np.random.SeedSequence
    fits: tuple[np.random.SeedSequence, ...]
    users: tuple[np.random.SeedSequence, ...]
    negatives: tuple[np.random.SeedSequence, ...]
    resampling: np.random.SeedSequence
