from ops.benchmarks.costs import fold_in_cost
from service.models.fold_in.settings import METHODS


def test_every_method_of_fold_in_is_measured() -> None:
    """Quickly here; the figures are positive, and a tail is no shorter than the middle."""
    assert {case.method for case in fold_in_cost.CASES} == set(METHODS)
    found = fold_in_cost.measure(n_items=300, n_factors=8, n_interactions=20, calls=30, rounds=2)
    assert list(found) == [case.name for case in fold_in_cost.CASES]
    for cost in found.values():
        assert 0 < cost.median_us <= cost.p99_us
