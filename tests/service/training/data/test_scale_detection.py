import numpy as np
import pytest

from service.models.history.rating_scale import RatingScale
from service.training.data.scale_detection import SettledScale, bulk_of, settle
from tests.support.interactions import rated


@pytest.mark.parametrize(
    ("ratings", "low", "high"),
    [
        ([1, 2, 3, 4, 5] * 40, 1, 5),
        ([1, 2, 3, 4, 5] * 40 + [99, 99], 1, 5),
        ([1, 2, 3, 4, 5] * 10 + [99, 99], 1, 5),
        ([0.5 * n for n in range(1, 11)] * 10 + [-99], 0.5, 5),
        ([5] * 100, 5, 5),
        ([5] * 100 + [1], 1, 5),
        ([-10, -5, 0, 5, 10] * 10, -10, 10),
        ([1, 100] * 20, 1, 100),
        ([1, 5, 99], 1, 99),
    ],
)
def test_the_bulk_of_ratings(ratings: list[float], low: float, high: float) -> None:
    """A few outliers are left out, a wide scale is not, and a few ratings have no outliers."""
    assert bulk_of(np.array(ratings, dtype=np.float32)) == (low, high)


def test_a_file_is_of_its_own_scale_and_hints_at_wild_ratings() -> None:
    """Its ratings stay as they are, whatever an earlier model learnt from; a tail that belongs to it is no mistake."""
    data = rated([(n % 20, n // 20, float(n % 5 + 1)) for n in range(200)] + [(0, 11, 99.0)])
    put, settled = settle(data, SettledScale(RatingScale(1, 5), "model"), is_archive=False)
    assert settled == SettledScale(RatingScale(1, 99), "data")
    assert put.ratings.tolist() == data.ratings.tolist()
    (note,) = put.report.notes
    assert note == (
        "1 rating stands far apart from all others, which are from 1 to 5, one being 99; if that is a mistake, "
        "declare the scale with --scale 1:5."
    )
    plays = np.random.default_rng(0).pareto(1.0, 400) + 1
    counted = rated([(n % 20, n // 20, float(value)) for n, value in enumerate(plays.tolist())])
    assert settle(counted, None, is_archive=False)[0].report.notes == ()
