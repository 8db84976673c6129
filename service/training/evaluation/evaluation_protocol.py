"""How models are judged: which ratings are held out, and what is measured of them.

Invariant: a protocol that exists is possible as far as that can be said without the data; `cuts` says the rest.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from service.errors import UsageError
from service.training.evaluation.measures.per_user import MAX_K

CANONICAL_FOLDS: Final = tuple(f"u{number}" for number in range(1, 6))

SPLIT_DESCRIPTIONS: Final = {
    "folds": "random folds over ratings",
    "leave-one-out": "the last interaction of each user",
    "time": "the youngest share of all interactions",
    "time-per-user": "the youngest share of each user's interactions",
    "canonical": "MovieLens 100K's own folds u1 to u5",
    "given": "a given test set",
}
TIME_SPLITS: Final = {"time", "time-per-user"}


@dataclass(frozen=True)
class EvaluationProtocol:
    """How models are judged.

    Attributes:
        split: A name of `SPLIT_DESCRIPTIONS`.
        folds: Of the split "folds".
        test_share: Of the splits by time, the part to judge by, between 0 and 1.
        seed: Decides everything random: the folds, the fits, the samples and the resampling.
        ks: Lengths of the lists that ranking measures look at, ascending.
        relevant_from: The least rating of a relevant item; None: every held-out item is relevant.
        most_users: Rank for at most so many users, chosen at random; None: all.
        n_negatives: Measure also among so many unseen items drawn for each user; None: do not.
    """

    split: str = "folds"
    folds: int = 5
    test_share: float = 0.2
    seed: int = 0
    ks: tuple[int, ...] = (10, 20)
    relevant_from: float | None = None
    most_users: int | None = None
    n_negatives: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without the data.

        Raises:
            UsageError: Something cannot be.
        """
        if self.split not in SPLIT_DESCRIPTIONS:
            raise UsageError(f"there is no split {self.split!r}; there is {', '.join(SPLIT_DESCRIPTIONS)}")
        if self.folds < 2:
            raise UsageError(f"a set cannot be cut into {self.folds} folds: there are 2 or more")
        if not 0 < self.test_share < 1:
            raise UsageError(f"the share to judge by must be between 0 and 1, not {self.test_share:g}")
        if not self.ks or list(self.ks) != sorted(set(self.ks)) or not 1 <= self.ks[0] <= self.ks[-1] <= MAX_K:
            raise UsageError(f"lengths of lists are different whole numbers from 1 to {MAX_K}, ascending")
        for name, value in (("users to rank for", self.most_users), ("sampled items", self.n_negatives)):
            if value is not None and value < 1:
                raise UsageError(f"the number of {name} must be at least 1, not {value}")

    @property
    def n_splits(self) -> int:
        """How many splits there are."""
        return {"folds": self.folds, "canonical": len(CANONICAL_FOLDS)}.get(self.split, 1)

    def seeds(self) -> "Seeds":
        """Return what the seed makes of itself."""
        n = self.n_splits
        cut, *fits = np.random.SeedSequence(self.seed).spawn(1 + n)
        users, negatives, resampling = np.random.SeedSequence([self.seed, 1]).spawn(3)
        return Seeds(cut, tuple(fits), tuple(users.spawn(n)), tuple(negatives.spawn(n)), resampling)


class Seeds(NamedTuple):
    """One for everything random, so that none depends on how much another draws; a tuple has one for each split."""

    cut: np.random.SeedSequence
    fits: tuple[np.random.SeedSequence, ...]
    users: tuple[np.random.SeedSequence, ...]
    negatives: tuple[np.random.SeedSequence, ...]
    resampling: np.random.SeedSequence
