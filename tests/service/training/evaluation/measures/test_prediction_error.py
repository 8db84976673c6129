from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from service.training.evaluation.measures.prediction_error import exceeds, format_measure, mae, rmse, t_interval95

Float64 = NDArray[np.float64]


def test_errors_by_hand() -> None:
    """Errors of 0, 3 and -4: the mean square is 25/3, the mean size 7/3."""
    predicted, actual = np.array([1.0, 5.0, 0.0]), np.array([1.0, 2.0, 4.0], dtype=np.float32)
    assert rmse(predicted, actual) == pytest.approx((25 / 3) ** 0.5)
    assert mae(predicted, actual) == pytest.approx(7 / 3)


@pytest.mark.parametrize("measure", [rmse, mae])
@pytest.mark.parametrize(("n", "m"), [(0, 0), (2, 3), (1, 2)])
def test_undefined_errors(measure: Callable[[Float64, Float64], float], n: int, m: int) -> None:
    """No rating at all, or predictions for other ones (numpy would broadcast a single one)."""
    with pytest.raises(ValueError, match="rating"):
        measure(np.zeros(n), np.zeros(m))


def test_the_interval_is_students() -> None:
    """For 5 folds t is 2.776 (a printed table), so the half width is 2.776 s / sqrt(5)."""
    values = [0.87, 0.88, 0.86, 0.875, 0.865]
    low, high = t_interval95(values)
    assert (low + high) / 2 == pytest.approx(np.mean(values))
    assert (high - low) / 2 == pytest.approx(2.776445 * np.std(values, ddof=1) / 5**0.5, rel=1e-6)


def test_one_fold_has_no_interval() -> None:
    """A spread needs two values."""
    with pytest.raises(ValueError, match="at least 2"):
        t_interval95([1.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (0.87321, "0.8732"),
        (17.78414, "17.7841"),
        (0.00031, "0.00031"),
        (2.5e38, "2.5e+38"),
        (-1, "-1.0000"),
    ],
)
def test_a_measure_is_formatted_by_its_magnitude(value: float, text: str) -> None:
    """Errors are in the unit of the ratings."""
    assert format_measure(value) == text


def test_an_error_is_above_another_by_more_than_rounding() -> None:
    """A model that predicts the mean is no worse than the mean."""
    assert not exceeds(1.0 + 1e-9, 1.0)
    assert exceeds(1.01, 1.0)
