"""The hold-out of a training: what a model is measured on before it is served, and what candidates are compared on.

Where there are times, the youngest tenth of a user's interactions is held out, at least one of two or more, and users
who were active last are judged. A service answers with a profile that reaches up to this moment (live events count), so
the profile must reach up to the held-out interactions: a cut at one moment for all users would judge stale profiles,
and leave out users who came after the cut. Where users who were active last are judged, few interactions of others are
younger than what is held out, so that the trend of popularity is not given away either. Without times, or if all are
equal, a random tenth of all interactions is held out. A dismissal is never held out: a list that holds the item is no
success.

Invariant: no interaction is on both sides, and neither side is empty. Only judged users have held-out interactions in a
hold-out by time. Of equal times the later position is the later interaction (`evaluation.splits`).
"""

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.models.history.user_history import DISMISS
from service.training.evaluation import splits
from service.training.interactions import Int64, Interactions

SplitName: TypeAlias = Literal["time-per-user", "random"]

SHARE: Final = 0.1
# With fewer interactions none is held out.
LEAST: Final = 10
# All users are judged up to so many; of more, the share of them that was active last, within these bounds.
_ALL_USERS: Final = 2_000
_LAST_SHARE: Final = 1 / 3
# Enough for two significant digits; bounds the time for a million users.
MOST_USERS: Final = 10_000


@dataclass(frozen=True, eq=False)
class HoldOut:
    """The two sides of a split, over the same users and items.

    Attributes:
        train: What a measured model learns from.
        hidden: What it is measured on.
        positions: Int64 (n,), ascending, the positions of `hidden` in the whole set.
        split: How it was made.
    """

    train: Interactions
    hidden: Interactions
    positions: Int64
    split: SplitName

    def described(self) -> dict[str, Any]:
        """Return the entry of a manifest."""
        n_users = int(np.unique(self.hidden.user_rows).size)
        return {"split": self.split, "share": SHARE, "n": len(self.hidden), "users": min(n_users, MOST_USERS)}


def nothing_held_out() -> dict[str, Any]:
    """Return the entry of a manifest where nothing could be held out."""
    return {"split": None, "share": SHARE, "n": 0, "users": 0, "note": "There are too few ratings to set any aside."}


def hold_out(data: Interactions, rng: np.random.Generator) -> HoldOut | None:
    """Split a set; None if it is too small."""
    if len(data) < LEAST:
        return None
    name: SplitName = "random"
    sides: tuple[Int64, Int64] | None
    if data.timestamps is not None and data.has_order:
        name, sides = "time-per-user", _by_time(data, data.timestamps)
    else:
        sides = splits.hold_out(len(data), SHARE, rng)
    if sides is None:
        return None
    train, hidden = sides
    if data.types is not None and (is_dismissed := data.types[hidden] == DISMISS).any():
        hidden = hidden[~is_dismissed]
        train = _others(len(data), hidden)
    if not train.size or not hidden.size:
        return None
    return HoldOut(data.take(train), data.take(hidden), hidden, name)


def _by_time(data: Interactions, times_s: Int64) -> tuple[Int64, Int64]:
    train, hidden = splits.latest_share_of_users(data.user_rows, times_s, SHARE)
    is_judged = _active_last(data, times_s)
    judged = hidden[is_judged[data.user_rows[hidden]]]
    if judged.size == hidden.size:
        return train, hidden
    return _others(len(data), judged), judged


def _others(n: int, positions: Int64) -> Int64:
    """Return the positions of n that are not among some, int64, ascending."""
    is_other = np.ones(n, dtype=bool)
    is_other[positions] = False
    return np.flatnonzero(is_other)


def _active_last(data: Interactions, times_s: Int64) -> NDArray[np.bool_]:
    """Return which users are judged, bool (n_users,): those with two or more interactions who were active last."""
    n_users = len(data.users)
    last_s = np.full(n_users, np.iinfo(np.int64).min)
    np.maximum.at(last_s, data.user_rows, times_s)
    candidates = np.flatnonzero(np.bincount(data.user_rows, minlength=n_users) > 1)
    n_judged = min(max(_ALL_USERS, int(candidates.size * _LAST_SHARE)), MOST_USERS)
    is_judged = np.zeros(n_users, dtype=bool)
    # Stable, so that of users who were active at the same time the later ones of the set are taken.
    is_judged[candidates[np.argsort(last_s[candidates], kind="stable")][-n_judged:]] = True
    return is_judged
