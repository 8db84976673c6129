"""Errors of predicted ratings (pure), and how measures are compared and printed.

rmse is sqrt(mean (predicted - actual)^2) and mae is mean |predicted - actual|, both over ratings and in units of the
rating scale; without a rating they are undefined (ValueError).
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

# An error within this factor of another differs by rounding and chance only.
_TOLERANCE: Final = 1.0005

Values = NDArray[np.floating[Any]]


def rmse(predicted: Values, actual: Values) -> float:
    """Return the root of the mean squared error of two float (n,) arrays.

    Raises:
        ValueError: The shapes differ, or n is 0.
    """
    return float(np.sqrt(np.mean(np.square(_errors(predicted, actual)))))


def mae(predicted: Values, actual: Values) -> float:
    """Return the mean absolute error of two float (n,) arrays.

    Raises:
        ValueError: The shapes differ, or n is 0.
    """
    return float(np.mean(np.abs(_errors(predicted, actual))))


RATING_MEASURES: Final[dict[str, Callable[[Values, Values], float]]] = {"rmse": rmse, "mae": mae}


def t_interval95(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mean of a few values, by Student's t distribution.

    Args:
        values: One per fold, at least 2. Folds share training data, so that the interval is somewhat too narrow
            (Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52, 2003).

    Raises:
        ValueError: There are fewer than 2 values.
    """
    if len(values) < 2:
        raise ValueError("An interval needs at least 2 values.")
    n = len(values)
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stdtrit(n - 1, 0.975)) * spread / n**0.5
    return mean - half, mean + half


def format_measure(value: float) -> str:
    """Return a measure with four decimals, or with four digits if it is of another order of magnitude."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.4g}"


def exceeds(error: float, other: float) -> bool:
    """Return whether an error is larger than another by more than rounding."""
    return error > other * _TOLERANCE


def _errors(predicted: Values, actual: Values) -> NDArray[np.float64]:
    if predicted.shape != actual.shape or predicted.ndim != 1:
        raise ValueError(f"{predicted.shape} predictions do not fit {actual.shape} ratings.")
    if not predicted.size:
        raise ValueError("An error over no rating is undefined.")
    return np.asarray(predicted, dtype=np.float64) - np.asarray(actual, dtype=np.float64)
