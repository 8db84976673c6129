"""The contract of every algorithm that computes a user from interactions. One case in `CASES` adds another."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from service.lists.explanations import shares_of_user
from service.lists.item_scores import ListUser
from service.models.files import artefact
from service.models.fold_in.fold_in import fold_in
from service.models.fold_in.representation import UserRepresentation
from service.models.folded_user import folded_user
from service.models.history.user_history import DISMISS, PURCHASE, RATING, UserHistory
from service.models.publication import publication
from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot
from service.training.algorithms import registry
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.interactions import Interactions, no_progress
from tests.support.interactions import rated
from tests.support.models.installed_algorithms import is_installed


@dataclass(frozen=True)
class Case:
    """One algorithm under the contract.

    Attributes:
        name: The name on the command line.
        settings: Settings of a quick fit.
        least_overlap: Of ten listed items, the mean share that a fold-in and a refit have in common.
        most_error: The root mean square difference of their scores of unseen items, over the spread of the scores.
        is_trained: Whether the published users are themselves fold-ins, to rounding.
        personal: Whether it distinguishes users by their interactions.
        tastes: Further settings, with which it learns two tastes from few interactions.
    """

    name: str
    settings: tuple[str, ...] = ()
    least_overlap: float = 0.0
    most_error: float = 1.0
    is_trained: bool = True
    personal: bool = True
    tastes: tuple[str, ...] = ()


# The agreement is bounded by what a refit changes in the tables of the items: two fits by stochastic descent, by
# sampling or from random factors differ as much as a fold-in and a refit.
CASES: Final = [
    Case("svd", ("n_factors=8",), 0.65, 0.55, is_trained=False, tastes=("n_epochs=400", "lr_all=0.02")),
    Case("svdpp", ("n_factors=8",), 0.65, 0.5, is_trained=False, tastes=("n_epochs=400", "lr_all=0.02")),
    Case("nmf", ("n_factors=8",), 0.45, 0.8, is_trained=False),
    Case("bayesian_mf", ("n_factors=4", "n_samples=40"), 0.75, 0.3, is_trained=False),
    Case("slope_one", (), 0.9, 0.15, personal=False),
    Case("knn_basic", ("user_based=false",), 0.8, 0.2),
    Case("knn_means", ("user_based=false",), 0.8, 0.2),
    Case("knn_baseline", ("user_based=false",), 0.8, 0.2),
    Case("baseline", (), 0.8, 0.15, personal=False),
    Case("ials", ("n_factors=8",), 0.85, 0.15),
    Case(
        *("softmax", ("n_factors=8", "n_epochs=20"), 0.65, 0.55),
        tastes=("n_factors=2", "batch_size=64", "n_epochs=40", "temperature=0.5"),
    ),
    Case("ease", (), 0.9, 0.15),
    Case("item_knn", (), 0.85, 0.15),
    Case("pure_svd", ("n_factors=8",), 0.8, 0.2),
    Case("next_item", (), 0.8, 0.2, tastes=("long_weight=0", "reg=0.1")),
    Case("popularity", (), 0.9, 0.1, personal=False),
    Case("sequence", ("n_factors=16", "n_blocks=1", "n_epochs=4", "window=30", "lr=0.01"), 0.3, 1.0),
    Case(
        *("two_tower", ("n_factors=8", "hidden_units=32", "width=16", "n_epochs=5"), 0.3, 1.5),
        tastes=("n_factors=4", "width=8", "n_epochs=30", "temperature=0.5", "batch_size=64", "n_drawn=0", "lr=0.01"),
    ),
    Case(
        *("two_tower_rating", ("n_factors=8", "hidden_units=32", "width=16", "lr=0.01", "n_epochs=20"), 0.35, 0.8),
        tastes=("n_factors=4", "width=8", "n_epochs=40"),
    ),
    Case(
        *("rank_net", ("n_factors=8", "hidden_units=32", "width=16", "lr=0.01", "n_epochs=5"), 0.3, 1.0),
        tastes=("n_factors=4", "width=8", "n_epochs=30", "temperature=0.5", "batch_size=64", "n_drawn=0"),
    ),
    Case(
        *("neural_mf", ("n_factors=8", "width=16", "lr=0.01", "n_epochs=5"), 0.3, 1.0),
        tastes=("n_factors=4", "width=8", "n_epochs=30", "batch_size=64", "n_drawn=0", "reg=0.1"),
    ),
]
# Networks need PyTorch, which is an extra.
ENROLLED: Final = [case for case in CASES if is_installed(case.name)]
CANNOT: Final = ("knn_basic", "knn_means", "knn_baseline")
RANKING: Final = [case for case in ENROLLED if case.personal and registry.get(case.name).kind == "ranking"]
# A network learns by itself how much an interaction says.
WEIGHTED: Final = [case for case in RANKING if "half_life" in registry.get(case.name).config.__dataclass_fields__]
LEFT_OUT: Final = np.arange(7, 300, 25)


def of(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def fitted(case: Case, data: Interactions, *more: str) -> ModelSnapshot:
    candidate = ConfiguredAlgorithm.parse(case.name, (*case.settings, *more))
    return candidate.algorithm.fit(data, candidate.config, np.random.default_rng(0), no_progress)


def folded(snapshot: ModelSnapshot, history: UserHistory) -> UserRepresentation:
    user = fold_in(snapshot, history)
    assert user is not None
    return user


def scores_of(snapshot: ModelSnapshot, user_row: int, user: UserRepresentation | None = None) -> NDArray[np.float64]:
    return scoring.exact_scores(snapshot, user_row, np.arange(len(snapshot.items)), user)


def every_bit(user: UserRepresentation) -> list[bytes]:
    return [np.asarray(part).tobytes() for part in user]


@pytest.fixture(scope="module")
def data() -> Interactions:
    return datasets.read("demo:300x150x9000")


@pytest.fixture(scope="module")
def fits() -> dict[str, ModelSnapshot]:
    """The model of all data by algorithm, fitted once."""
    return {}


def whole_fit(case: Case, data: Interactions, fits: dict[str, ModelSnapshot]) -> ModelSnapshot:
    if case.name not in fits:
        fits[case.name] = fitted(case, data)
    return fits[case.name]


@pytest.fixture(params=ENROLLED, ids=[case.name for case in ENROLLED])
def case(request: pytest.FixtureRequest) -> Case:
    enrolled: Case = request.param
    return enrolled


def test_every_algorithm_is_enrolled() -> None:
    assert [case.name for case in CASES] == registry.names()


@pytest.mark.parametrize("name", CANNOT)
def test_users_as_neighbours_cannot_be_folded_in(name: str, data: Interactions) -> None:
    """The list stays as trained."""
    snapshot = fitted(Case(name), data)
    assert snapshot.fold_in is None
    assert fold_in(snapshot, snapshot.user_history(3)) is None


def test_a_fold_in_agrees_with_a_refit(case: Case, data: Interactions, fits: dict[str, ModelSnapshot]) -> None:
    """Of users that the model was fitted without, judged by a model that was fitted with them."""
    whole = whole_fit(case, data, fits)
    without = fitted(case, data.take(np.flatnonzero(~np.isin(data.user_rows, LEFT_OUT))))
    overlaps, errors = [], []
    for row in LEFT_OUT.tolist():
        history = whole.user_history(row)
        refitted, found = scores_of(whole, row), scores_of(without, row, folded(without, history))
        unseen = np.setdiff1d(np.arange(len(data.items)), history.rows)
        expected, got = refitted[unseen], found[unseen]
        overlaps.append(np.intersect1d(np.argsort(-expected)[:10], np.argsort(-got)[:10]).size / 10)
        errors.append(np.sqrt(np.mean(np.square(got - expected))) / np.std(refitted))
    assert np.mean(overlaps) >= case.least_overlap
    assert np.mean(errors) <= case.most_error


@of([case for case in ENROLLED if case.is_trained])
def test_trained_users_are_fold_ins_of_their_histories(
    case: Case, data: Interactions, fits: dict[str, ModelSnapshot]
) -> None:
    """So that the first live event of a user changes the list by what it says alone."""
    snapshot = whole_fit(case, data, fits)
    for row in (0, 7, 150, 299):
        trained = scores_of(snapshot, row)
        live = scores_of(snapshot, row, folded(snapshot, snapshot.user_history(row)))
        np.testing.assert_allclose(live, trained, rtol=0, atol=1e-4 * max(1.0, np.abs(trained).max()))


@of([case for case in ENROLLED if not case.is_trained])
def test_a_known_user_moves_by_new_interactions_alone(
    case: Case, data: Interactions, fits: dict[str, ModelSnapshot]
) -> None:
    """Without one the user is the trained one; an unknown one is the fold-in."""
    snapshot = whole_fit(case, data, fits)
    for row in (0, 7, 150, 299):
        user = folded_user(snapshot, row, snapshot.user_history(row))
        assert user is not None
        assert user.factors.tobytes() == snapshot.user_factors[row].tobytes()
        assert user.constant == snapshot.user_constants[row]
    history = snapshot.user_history(7)
    more = history._replace(values=np.where(np.arange(history.rows.size) < 5, 6 - history.values, history.values))
    moved, plain = folded_user(snapshot, 7, more), folded(snapshot, more)
    unmoved = folded(snapshot, history)
    assert moved is not None
    np.testing.assert_allclose(
        scores_of(snapshot, 7, moved) - scores_of(snapshot, 7),
        scores_of(snapshot, 7, plain) - scores_of(snapshot, 7, unmoved),
        atol=1e-4,
    )
    stranger = folded_user(snapshot, None, history)
    assert stranger is not None
    assert every_bit(stranger) == every_bit(unmoved)


def test_a_fold_in_has_the_same_bits_again(
    case: Case, data: Interactions, fits: dict[str, ModelSnapshot], tmp_path: Path
) -> None:
    """Also of the published model, as a replica maps it."""
    snapshot = whole_fit(case, data, fits)
    mapped = artefact.load(tmp_path / publication.publish(tmp_path, snapshot, data={}, measures={}))
    assert mapped.fold_in == snapshot.fold_in
    for row in (0, 7):
        first, again, served = (folded(model, model.user_history(row)) for model in (snapshot, snapshot, mapped))
        assert every_bit(first) == every_bit(again) == every_bit(served)
        assert first.seen.tolist() == snapshot.seen_rows(row).tolist()


def test_shares_of_items_add_up_to_scores(case: Case) -> None:
    """What is left of a score besides the shares and the item's bias is the same for all items."""
    snapshot = fitted(case, datasets.read("demo:60x40x1200"))
    history = snapshot.user_history(3)
    user = ListUser(None, folded(snapshot, history), history=history)
    shares = shares_of_user(snapshot, user, np.arange(len(snapshot.items)))
    if not case.personal and shares is None:
        return
    assert shares is not None
    scores = scores_of(snapshot, 0, user.representation)
    rest = scores - shares.shares.sum(axis=0) - snapshot.item_bias
    assert np.ptp(rest) <= 1e-4 * max(1.0, np.abs(scores).max())


def test_a_user_without_interactions_is_as_an_unknown_one(case: Case, data: Interactions) -> None:
    """The scores are those of a user without training interactions, and all items may be listed."""
    snapshot = fitted(case, data.take(np.flatnonzero(data.user_rows != 5)))
    user = folded(snapshot, event([], [], []))
    assert user.seen.size == 0
    np.testing.assert_allclose(scores_of(snapshot, 5, user), scores_of(snapshot, 5), atol=1e-5)
    (ranking,) = scoring.personal(snapshot, [scoring.TopNRequest(0, 10, user=user)])
    assert ranking.rows.size == 10


def test_an_item_without_training_interactions_changes_no_other(case: Case, data: Interactions) -> None:
    """It is left out of lists as seen, and says nothing about other items."""
    snapshot = fitted(case, data.take(np.flatnonzero(data.item_rows != 11)), *(_undecayed(case)))
    known = snapshot.user_history(3)
    more = UserHistory(
        np.append(known.rows, np.int32(11)),
        np.append(known.values, np.float32(3.0)),
        np.append(known.types, np.uint8(RATING)),
        None if known.times_s is None else np.append(known.times_s, known.times_s[-1] + 1),
    )
    before, after = (folded(snapshot, history) for history in (known, more))
    assert after.seen.tolist() == sorted([*before.seen.tolist(), 11])
    order_before, order_after = (np.argsort(-scores_of(snapshot, 3, user))[:20] for user in (before, after))
    assert np.intersect1d(order_before, order_after).size >= 18


def _undecayed(case: Case) -> tuple[str, ...]:
    if case.name == "next_item":
        return ("half_life=0", "long_weight=0")
    return ("half_life=0",) if case in WEIGHTED else ()


def two_tastes(n: int = 40) -> Interactions:
    """Return users who have only items of their own taste, and two more items: even and odd ones, at random."""
    users, items = (axis.ravel() for axis in np.mgrid[0:n, 0:n])
    known = np.random.default_rng(0).random(users.size) > 0.4
    chosen = known & ((users + items) % 2 == 0)
    rows = [(int(user), int(item), 5.0) for user, item in zip(users[chosen], items[chosen], strict=True)]
    data = rated([*rows, (0, 1, 1.0)], times=list(range(len(rows) + 1)))
    return replace(data, rating_min=1.0)


def event(rows: list[int], types: list[int], values: list[float]) -> UserHistory:
    return UserHistory(
        np.array(rows, np.int32),
        np.array(values, np.float32),
        np.array(types, np.uint8),
        np.arange(len(rows), dtype=np.int64),
    )


def taste(snapshot: ModelSnapshot, history: UserHistory) -> float:
    """Return how much higher the even items score than the odd ones."""
    scores = scores_of(snapshot, 0, folded(snapshot, history))
    unseen = np.setdiff1d(np.arange(len(snapshot.items)), history.rows)
    return float(scores[unseen[unseen % 2 == 0]].mean() - scores[unseen[unseen % 2 == 1]].mean())


@of(WEIGHTED)
def test_the_latest_interaction_weighs_most(case: Case) -> None:
    """With a half-life of one interaction, and without one both orders are alike."""
    snapshot = fitted(case, two_tastes(), *case.tastes, "half_life=1")
    liked = [PURCHASE, PURCHASE]
    assert taste(snapshot, event([3, 2], liked, [5, 5])) > 0 > taste(snapshot, event([2, 3], liked, [5, 5]))
    alike = fitted(case, two_tastes(), *case.tastes, "half_life=0")
    one, other = (taste(alike, event(rows, liked, [5, 5])) for rows in ([3, 2], [2, 3]))
    assert one == pytest.approx(other, abs=1e-5)


@of(WEIGHTED)
def test_a_dislike_turns_away_from_its_kind(case: Case) -> None:
    """A dismissal or a low rating of an even item lowers the even ones; a purchase or a high rating raises them."""
    snapshot = fitted(case, two_tastes(), *case.tastes, "half_life=0", "dislike_weight=-1")
    liked_types, liked_values = [PURCHASE, PURCHASE], [5.0, 5.0]
    before = taste(snapshot, event([3, 4], liked_types, liked_values))
    for kind, value in ((DISMISS, 1.0), (RATING, 1.0)):
        assert taste(snapshot, event([3, 4, 2], [*liked_types, kind], [*liked_values, value])) < before
    for kind, value in ((PURCHASE, 5.0), (RATING, 4.0)):
        assert taste(snapshot, event([3, 4, 2], [*liked_types, kind], [*liked_values, value])) > before


@of(RANKING)
def test_dislikes_alone_are_no_taste(case: Case) -> None:
    """What is least like them is no recommendation: the list is the popular one, without what was seen."""
    snapshot = fitted(case, two_tastes(), *case.tastes)
    user = folded(snapshot, event([2, 3], [DISMISS, DISMISS], [1.0, 1.0]))
    (ranking,) = scoring.personal(snapshot, [scoring.TopNRequest(0, 10, user=user)])
    popular = scoring.popular(snapshot, 10, exclude=np.array([2, 3])).rows
    assert ranking.rows.tolist() == popular.tolist()
    assert ranking.is_personal is not None
    assert not ranking.is_personal.any()


@of([case for case in ENROLLED if case.personal and case not in RANKING])
def test_a_low_rating_lowers_its_kind(case: Case, data: Interactions) -> None:
    """Of two users that differ in one rating, the one with the lower has the lower scores of similar items."""
    users, items = (axis.ravel() for axis in np.mgrid[0:40, 0:40])
    known = np.random.default_rng(0).random(users.size) > 0.3
    ratings = np.where((users + items) % 2 == 0, 5.0, 1.0)
    rows: Any = zip(users[known].tolist(), items[known].tolist(), ratings[known].tolist(), strict=True)
    snapshot = fitted(case, rated(list(rows)), *case.tastes)
    base_rows, base_types = [1, 3, 4, 6], [RATING] * 5
    low, high = (taste(snapshot, event([*base_rows, 2], base_types, [1, 1, 5, 5, value])) for value in (1.0, 5.0))
    assert low < high - 0.1
