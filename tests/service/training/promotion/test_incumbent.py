from dataclasses import replace

import numpy as np

from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.hold_out.list_quality import ListQuality
from service.training.hold_out.split import HoldOut, hold_out
from service.training.interactions import Interactions, no_progress
from service.training.promotion.incumbent import Incumbent
from service.training.promotion.list_comparison import compare_lists
from service.training.promotion.verdict import ListComparison
from service.training.selection.measured_choice import of_named
from tests.support.interactions import rated

SEED = np.random.SeedSequence(1)


def fitted(name: str, data: Interactions) -> ModelSnapshot:
    candidate = ConfiguredAlgorithm.parse(name)
    return candidate.algorithm.fit(data, candidate.config, np.random.default_rng(0), no_progress)


def test_errors_are_compared_on_ratings_that_neither_has_learnt() -> None:
    """Of users and items that the active model knows; None if there are none, or it only ranks."""
    learnt = rated([(0, 0, 4.0), (0, 1, 2.0), (1, 0, 3.0)])
    hidden = rated([(0, 0, 1.0), (1, 1, 3.0), (1, 2, 5.0), (2, 0, 5.0)])
    incumbent = Incumbent(fitted("baseline", learnt))
    assert incumbent.unlearnt(hidden).tolist() == [1, 2]
    compared = incumbent.compare_errors(hidden, np.array([9.0, 4.5, 9.0, 9.0]))
    assert compared is not None
    assert (compared.new, compared.n) == (1.5, 1)
    assert compared.active < 1.5
    assert incumbent.compare_errors(learnt, np.zeros(3)) is None
    assert Incumbent(fitted("popularity", learnt)).compare_errors(hidden, np.zeros(4)) is None


def test_published_lists_are_compared_in_the_rows_of_the_new_model() -> None:
    """Ids decide, whatever their rows; what a user did since the training is left out, as in the service."""
    old = rated([(user, item, 1.0) for user in range(40) for item in range(3 + user % 2)], n_items=9)
    # The same ids in another order: item i4, the next in popularity, is what everyone did later.
    rows = [(user, item) for user in range(40) for item in (8, 7, 6)] + [(user, 5) for user in range(0, 40, 2)]
    train = rated([(user, item, 1.0) for user, item in rows], n_users=40, n_items=9)
    train = _with_items(train, [f"i{8 - row}" for row in range(9)])
    hidden = _with_items(
        rated([(user, item, 1.0) for user in range(40) for item in (4, 3, 2)], n_users=40, n_items=9),
        [f"i{8 - row}" for row in range(9)],
    )
    held_out = HoldOut(train, hidden, np.arange(len(hidden)), "time-per-user")
    candidate = ConfiguredAlgorithm.parse("popularity")
    choice = of_named(train, held_out, candidate, SEED, no_progress)
    assert choice.measured is not None
    incumbent = Incumbent(fitted("popularity", old))
    compared = compare_lists(incumbent, candidate, held_out, choice.measured, limit_s=60, seed=SEED)
    assert compared is not None
    assert (compared.how, compared.n) == ("published", 120)
    # Both list the six or five other items of nine, so that only the order of unpopular items differs.
    assert 0.5 < compared.active <= 1
    assert compared.new == choice.measured.quality.ndcg


def test_what_was_measured_is_not_fitted_again() -> None:
    """The active model's algorithm and settings among the candidates; others need the time for a fit."""
    rows = [(user, item, 1.0) for user in range(30) for item in range(20) if (user + item) % 3]
    data = rated(rows, times=list(range(len(rows))))
    held_out = hold_out(data, np.random.default_rng(0))
    assert held_out is not None
    candidate, active = ConfiguredAlgorithm.parse("popularity"), ConfiguredAlgorithm.parse("pure_svd")
    measured = of_named(data, held_out, candidate, SEED, no_progress).measured
    other = of_named(data, held_out, active, SEED, no_progress).measured
    assert measured is not None
    assert other is not None
    incumbent = Incumbent(fitted("pure_svd", data))

    def compared(others: list[tuple[ConfiguredAlgorithm, ListQuality]], limit_s: float) -> ListComparison | None:
        return compare_lists(incumbent, candidate, held_out, measured, limit_s=limit_s, seed=SEED, others=others)

    found = compared([(active, other.quality)], -1)
    assert found == ListComparison(measured.quality.ndcg, other.quality.ndcg, len(held_out.hidden), "refitted")
    assert compared([(candidate, measured.quality)], -1) is None
    assert compared([], 60) is not None


def test_what_a_user_did_since_is_folded_in() -> None:
    """As the service does with live events: the active model is not judged by a stale profile."""
    # Even users know even items and odd users odd ones; then the even ones change sides.
    rng = np.random.default_rng(0)
    old = [(user, item, 1.0) for user in range(60) for item in range(user % 2, 40, 2) if rng.random() < 0.6]
    old = [row for row in old if row[0] >= 20 or row[1] < 4]
    since = [(user, item, 1.0) for user in range(0, 20, 2) for item in (1, 3, 5, 7, 9, 11)]
    hidden = rated([(user, item, 1.0) for user in range(0, 20, 2) for item in range(13, 40, 2)], n_users=60, n_items=40)
    times = [*([100] * len(old)), *range(200, 200 + len(since))]
    train = rated([*old, *since], times=times, n_users=60, n_items=40)
    held_out = HoldOut(train, hidden, np.arange(len(hidden)), "time-per-user")
    candidate = ConfiguredAlgorithm.parse("popularity")
    choice = of_named(train, held_out, candidate, SEED, no_progress)
    assert choice.measured is not None
    learnt = rated(old, times=[n % 100 for n in range(len(old))], n_users=60, n_items=40)
    incumbent = Incumbent(fitted("pure_svd", learnt))
    compared = compare_lists(incumbent, candidate, held_out, choice.measured, limit_s=60, seed=SEED)
    assert compared is not None
    assert compared.how == "published"
    assert compared.active > 0.9
    assert compared.new < 0.8


def _with_items(data: Interactions, ids: list[str]) -> Interactions:

    return replace(data, items=Vocabulary(ids))
