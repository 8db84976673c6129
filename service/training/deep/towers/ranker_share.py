"""The share of a ranker's difference to plain products that a model serves, and what it gains."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

from service.training.hyperparameters import Hyperparameters
from service.training.interactions import Float64

# The shares that are compared.
SHARES: Final = (0.0, 0.2, 0.35, 0.5, 0.7, 1.0)
# A gain of fewer standard errors may be noise.
_LEAST_ERRORS: Final = 2.0
# Of fewer hidden interactions the standard error is not known well enough.
_LEAST_HIDDEN: Final = 30


@dataclass(frozen=True)
class RankerConfig(Hyperparameters):
    """The base of the Configs of models with a ranker."""

    ranker_share: Annotated[
        float | None,
        {"least": 0, "most": 1},
        "Share of the ranker's difference to products of factors; 0 for a model without a ranker; if none, the best "
        "one on hidden interactions, 0 unless its gain is two standard errors.",
    ] = None


class RankerShare(NamedTuple):
    """A share, and its gain on hidden interactions.

    Attributes:
        share: From 0, for products alone, to 1, for the ranker alone.
        gain: What it adds to the mean NDCG of products alone; None if too few interactions are hidden.
        error: The standard error of the gain, in pairs; None likewise.
    """

    share: float
    gain: float | None = None
    error: float | None = None

    def as_json(self) -> dict[str, float]:
        """Return `ranker_gain` and `ranker_gain_error`, if there are any."""
        if self.gain is None or self.error is None:
            return {}
        return {"ranker_gain": self.gain, "ranker_gain_error": self.error}


def best_share(gains: Mapping[float, Float64]) -> RankerShare:
    """Return the share with the best mean among those whose gain is not noise; else 0 with the gain of the best one.

    Args:
        gains: By share, among them 0: the gain of each hidden interaction, float64 (m,), see `NextValidation.gains`.
    """
    compared = [compare(share, gains) for share in gains if share]
    sure = [each for each in compared if _is_sure(each)]
    if sure:
        return max(sure, key=_gain)
    return max(compared, key=_gain)._replace(share=0.0)


def compare(share: float, gains: Mapping[float, Float64]) -> RankerShare:
    """Return a share with its gain.

    Args:
        share: One of `gains`.
        gains: See `best_share`.
    """
    differences = gains[share] - gains[0.0]
    if differences.size < _LEAST_HIDDEN:
        return RankerShare(share)
    return RankerShare(share, float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(differences.size))


def _is_sure(compared: RankerShare) -> bool:
    gain, error = compared.gain, compared.error
    return gain is not None and error is not None and gain > 0 and gain >= _LEAST_ERRORS * error


def _gain(compared: RankerShare) -> float:
    return -math.inf if compared.gain is None else compared.gain
