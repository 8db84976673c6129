"""Lists of similar items agree with the plain definition."""

from collections.abc import Callable

import numpy as np

from service.models.snapshot import ModelSnapshot
from tests.support.models.similar_list import similar_list

Make = Callable[..., ModelSnapshot]


def test_similar_items_are_ordered_by_cosine_and_leave_the_item_itself_out(make_snapshot: Make) -> None:
    """The order is that of the plain cosine."""
    snapshot = make_snapshot(n_items=900)
    factors = snapshot.item_factors.astype(np.float64)
    cosine = factors @ factors[5] / (np.linalg.norm(factors, axis=1) * np.linalg.norm(factors[5]))
    cosine[5] = -np.inf
    made = similar_list(snapshot, 5, 12)
    assert made.rows == np.argsort(-cosine, kind="stable")[:12].tolist()
    np.testing.assert_allclose(made.scores, cosine[made.rows], rtol=1e-5)


def test_an_item_without_factors_is_similar_to_nothing_and_breaks_nothing(make_snapshot: Make) -> None:
    """All-zero factors have no direction: the cosine is 0, not NaN."""
    snapshot = make_snapshot(n_items=50)
    snapshot.item_factors[7] = 0
    assert similar_list(snapshot, 7, 5).scores.tolist() == [0.0] * 5
