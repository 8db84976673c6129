from typing import Literal

import pytest

from service.training.promotion.verdict import DirectComparison, HoldOutResult, ListComparison, errors_lose, lists_lose


def errors(
    new: float,
    n: int = 1000,
    *,
    simple: float = 1.1,
    recorded: HoldOutResult | None = None,
    direct: DirectComparison | None = None,
) -> str | None:
    return errors_lose(HoldOutResult(new, simple), n, active="svd-1", recorded=recorded, direct=direct)


class TestErrors:
    def test_the_same_ratings_decide(self) -> None:
        """With enough of them; what was recorded on others then counts for nothing."""
        assert errors(0.9, direct=DirectComparison(0.9, 0.85, 500)) is None
        assert errors(0.9, recorded=HoldOutResult(0.3, 1.1), direct=DirectComparison(0.9, 0.85, 500)) is None
        why = errors(0.9, recorded=HoldOutResult(0.9, 1.1), direct=DirectComparison(1.2, 0.85, 500))
        assert why is not None
        assert "on 500 held-out ratings that neither model has learnt, its RMSE is 1.2000" in why

    @pytest.mark.parametrize(
        ("new", "n", "simple", "recorded", "is_worse"),
        [
            (7.4, 1000, 8.0, HoldOutResult(0.9, 1.1), True),  # outliers are hard for the mean, too
            (1.4, 1000, 1.5, HoldOutResult(0.9, 1.0), False),  # a harder set: as good against the mean as before
            (1.2, 1000, 1.1, HoldOutResult(0.9, 1.1), True),
            (1.2, 50, 1.1, HoldOutResult(0.9, 1.1), False),  # too few to say so
            (1.9, 50, 1.1, HoldOutResult(0.9, 1.1), True),
            (9.0, 5, 1.1, HoldOutResult(0.9, 1.1), False),
            (1.2, 1000, 1.1, HoldOutResult(0.9, None), False),
        ],
    )
    def test_what_was_recorded_counts_where_the_same_ratings_are_few(
        self, new: float, n: int, simple: float, recorded: HoldOutResult, *, is_worse: bool
    ) -> None:
        """In relation to the mean rating on either hold-out, unless it is out of all proportion."""
        assert (
            errors(new, n, simple=simple, recorded=recorded, direct=DirectComparison(1, 9, 20)) is not None
        ) == is_worse

    def test_the_mean_alone_is_the_last_resort(self) -> None:
        """Also against a model of another kind, which has no error."""
        assert errors(1.2, simple=1.1) is None
        why = errors(1.5, simple=1.1)
        assert why is not None
        assert why.endswith("that of the mean rating alone 1.1000")


@pytest.mark.parametrize(
    ("new", "n", "simple", "recorded", "is_worse"),
    [
        (0.2, 1000, 0.1, HoldOutResult(0.3, 0.2), False),
        (0.1, 1000, 0.1, None, False),
        (0.09, 1000, 0.1, None, True),  # counting is better
        (0.09, 50, 0.1, None, True),
        (0.04, 5, 0.1, None, False),  # too few to say so
        (0.1, 1000, 0.1, HoldOutResult(0.3, 0.12), True),
        (0.1, 1000, 0.04, HoldOutResult(0.3, 0.12), False),  # another set: as good against popularity as before
    ],
)
def test_lists(new: float, n: int, simple: float, recorded: HoldOutResult | None, *, is_worse: bool) -> None:
    """Less than popularity; or half of what was recorded, in itself and against popularity."""
    why = lists_lose(HoldOutResult(new, simple), n, active="ials-1", recorded=recorded, direct=None)
    assert (why is not None) == is_worse


@pytest.mark.parametrize("how", ["published", "refitted"])
def test_lists_on_one_hold_out(how: Literal["published", "refitted"]) -> None:
    """They decide where there are enough, and what was recorded on others then counts for nothing."""
    recorded = HoldOutResult(0.9, 0.1)

    def verdict(new: float, n: int) -> str | None:
        direct = ListComparison(new, 0.2, n, how)
        return lists_lose(HoldOutResult(0.15, 0.1), 1000, active="ials-1", recorded=recorded, direct=direct)

    assert verdict(0.17, 500) is None
    assert verdict(0.1, 99) is None
    why = verdict(0.15, 500)
    assert why is not None
    assert "its NDCG@10 is 0.1500, and that of ials-1, the active model," in why
    assert why.endswith(" 0.2000")
    assert ("fitted again" in why) == (how == "refitted")
