"""The contract of every algorithm. One case in `CASES` adds another."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import TrainingDiverged, UsageError
from service.generation.bulk_users import BulkUsers
from service.generation.list_model import BulkModel
from service.generation.shard_lists import shard_lists
from service.generation.shard_users import ShardUsers
from service.lists.list_request import ListRequest
from service.models import artefact, erased_users, personal_lists, publication, scoring
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.training.algorithms import hyperparameters, registry
from service.training.algorithms.kernels import threads
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.evaluation import splits
from service.training.evaluation.measures.prediction_error import rmse
from service.training.interactions import Interactions, ReadReport, no_progress
from tests.support.models.installed_algorithms import is_installed
from tests.support.models.similar_list import similar_list


@dataclass(frozen=True)
class Case:
    """One algorithm under the contract.

    Attributes:
        name: The name on the command line.
        learning: Settings that learn the checkerboard, or quick ones if the algorithm cannot.
        refused: Settings with a value to refuse.
        diverging: Settings that diverge, beginning with the one that the error names; empty if none can.
        personal: Whether it distinguishes users by their ratings, so that it learns the checkerboard.
        seeded: Whether it draws random numbers.
        unknown: Its prediction for a user without ratings: the item's baseline, or the mean of all ratings.
    """

    name: str
    learning: tuple[str, ...]
    refused: tuple[str, ...]
    diverging: tuple[str, ...] = ()
    personal: bool = True
    seeded: bool = True
    unknown: Literal["baseline", "mean"] = "baseline"


CASES = [
    Case(
        "svd",
        ("n_factors=4", "n_epochs=400", "lr_all=0.02"),
        refused=("n_factors=0", "lr_all=-1", "reg_all=nan"),
        diverging=("lr_all=9",),
    ),
    Case(
        "svdpp",
        ("n_factors=4", "n_epochs=400", "lr_all=0.02"),
        refused=("n_factors=0", "lr_yj=-1", "reg_yj=nan"),
        diverging=("lr_all=9",),
    ),
    Case(
        "nmf",
        ("n_factors=4", "n_epochs=400"),
        refused=("n_factors=0", "reg_pu=-1", "init_high=0", "init_low=-1"),
        diverging=("lr_bu=9", "biased=true"),
        unknown="mean",
    ),
    Case("bayesian_mf", ("n_factors=2", "n_samples=150"), refused=("n_factors=0", "n_samples=0", "implicit=maybe")),
    Case("slope_one", (), refused=("n_neighbours=0",), personal=False, seeded=False, unknown="mean"),
    Case(
        "knn_basic",
        ("k=10", "n_neighbours=10"),
        refused=("k=0", "min_k=0", "similarity=jaccard", "user_based=perhaps", "min_support=0", "shrinkage=-1"),
        diverging=("bsl_learning_rate=9", "bsl_method=sgd", "similarity=pearson_baseline"),
        seeded=False,
        unknown="mean",
    ),
    Case("knn_means", ("k=10", "n_neighbours=10"), refused=("k=0",), seeded=False, unknown="mean"),
    Case("knn_baseline", ("k=10", "n_neighbours=10"), refused=("bsl_method=svd",), seeded=False),
    Case(
        "baseline",
        (),
        refused=("n_epochs=0", "method=svd"),
        diverging=("learning_rate=9", "method=sgd"),
        personal=False,
        seeded=False,
    ),
    Case("ials", ("n_factors=2",), refused=("n_factors=0", "reg=0", "unobserved_weight=-1", "confidence=likes")),
    Case(
        "softmax",
        ("n_factors=2", "batch_size=64", "n_epochs=40", "temperature=0.5"),
        refused=("temperature=0", "n_negatives=0", "batch_size=0", "lr=-1"),
    ),
    Case("ease", (), refused=("reg=0", "n_neighbours=0"), seeded=False),
    Case(
        "item_knn", (), refused=("n_neighbours=0", "similarity=pearson", "weighting=idf", "asymmetry=2"), seeded=False
    ),
    Case("pure_svd", ("n_factors=2",), refused=("n_factors=0", "user_exponent=-1", "item_exponent=3")),
    Case(
        "next_item",
        ("half_life=0", "reverse=1", "look_ahead=0", "form=lists"),
        refused=("half_life=-1", "reg=0", "look_ahead=1", "reverse=2", "window=0", "n_neighbours=0", "form=tables"),
        seeded=False,
    ),
    Case("popularity", (), refused=("half_life_days=0", "window_days=0"), personal=False, seeded=False),
    Case(
        "sequence",
        ("n_factors=8", "n_blocks=1", "n_epochs=10", "window=30", "lr=0.03", "dropout=0", "n_negatives=0"),
        refused=("n_factors=1", "n_heads=0", "window=0", "block=square", "dropout=1", "lr=0", "n_negatives=-1"),
    ),
    Case(
        "two_tower",
        ("n_factors=4", "hidden_units=32", "width=8", "lr=0.01", "n_epochs=20", "temperature=0.5", "batch_size=256"),
        refused=("temperature=0", "n_drawn=-1", "half_life=-1", "window=0", "batch_size=0"),
    ),
    Case(
        "two_tower_rating",
        ("n_factors=4", "hidden_units=32", "width=8", "lr=0.01", "n_epochs=40"),
        refused=("n_factors=0", "hidden_units=1", "width=0", "dropout=1", "window=0", "lr=0", "patience=-1"),
    ),
    Case(
        "rank_net",
        (
            *("n_factors=4", "hidden_units=32", "width=8", "lr=0.02", "n_epochs=20", "temperature=1", "batch_size=128"),
            "ranker_share=1",
        ),
        refused=("n_candidates=0", "n_others=0", "similarity_weight=-1", "ranker_share=2", "ranker_dropout=1"),
    ),
    Case(
        "neural_mf",
        ("n_factors=4", "width=8", "lr=0.01", "n_epochs=20", "batch_size=64", "reg=0.1", "ranker_share=0.5"),
        refused=("n_factors=0", "n_candidates=0", "n_others=0", "reg=-1", "window=0", "ranker_dropout=1"),
    ),
]
# Networks need PyTorch, which is an extra.
ENROLLED = [case for case in CASES if is_installed(case.name)]
RATING = [case for case in ENROLLED if registry.get(case.name).kind == "rating"]
RANKING = [case for case in ENROLLED if registry.get(case.name).kind == "ranking"]


def of(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """Run a test for some algorithms instead of all."""
    chosen = list(cases)
    return pytest.mark.parametrize("case", chosen, ids=[case.name for case in chosen])


@pytest.fixture(params=ENROLLED, ids=[case.name for case in ENROLLED])
def case(request: pytest.FixtureRequest) -> Case:
    enrolled: Case = request.param
    return enrolled


def interactions(users: NDArray[np.int64], items: NDArray[np.int64], ratings: NDArray[np.float64]) -> Interactions:
    return Interactions(
        users=Vocabulary([f"u{i}" for i in range(int(users.max()) + 1)]),
        items=Vocabulary([f"i{i}" for i in range(int(items.max()) + 1)]),
        user_rows=users.astype(np.int32),
        item_rows=items.astype(np.int32),
        ratings=ratings.astype(np.float32),
        timestamps=None,
        rating_min=1.0,
        rating_max=5.0,
        fingerprint="sha256:0",
        report=ReadReport(source="made up"),
    )


def checkerboard(n: int = 40) -> tuple[Interactions, Interactions]:
    """Return known and hidden squares (3 of 10) of a checkerboard: 5 if user and item are both even or odd, else 1.

    Biases cannot learn it, because all means are equal.
    """
    users, items = (axis.ravel() for axis in np.mgrid[0:n, 0:n])
    ratings = np.where((users + items) % 2 == 0, 5.0, 1.0)
    known = np.random.default_rng(0).random(users.size) > 0.3
    data = interactions(users, items, ratings)
    return data.take(np.flatnonzero(known)), data.take(np.flatnonzero(~known))


def fitted(case: Case, data: Interactions, *, seed: int = 0, more: tuple[str, ...] = ()) -> ModelSnapshot:
    candidate = ConfiguredAlgorithm.parse(case.name, (*case.learning, *more))
    return candidate.algorithm.fit(data, candidate.config, np.random.default_rng(seed), no_progress)


def predicted(case: Case, snapshot: ModelSnapshot, users: Any, items: Any) -> NDArray[np.float64]:
    pairs = (np.ascontiguousarray(rows, dtype=np.int32) for rows in (users, items))
    return registry.get(case.name).predict(snapshot, *pairs)


def every_bit(snapshot: ModelSnapshot) -> dict[str, bytes]:
    return {name: np.ascontiguousarray(array).tobytes() for name, array in artefact._arrays_of(snapshot).items()}


def test_every_algorithm_is_enrolled() -> None:
    """The contract covers all algorithms."""
    assert [case.name for case in CASES] == registry.names()


@of(case for case in RATING if case.personal)
def test_a_checkerboard_is_learnt(case: Case) -> None:
    """The hidden squares are predicted, and the unseen items of every user are in order."""
    known, hidden = checkerboard()
    snapshot = fitted(case, known)
    assert rmse(predicted(case, snapshot, hidden.user_rows, hidden.item_rows), hidden.ratings) < 0.25
    for user_row in range(len(known.users)):
        unseen = hidden.item_rows[hidden.user_rows == user_row]
        scores = scoring.exact_scores(snapshot, user_row, unseen.astype(np.int64))
        is_loved = unseen % 2 == user_row % 2
        assert scores[is_loved].min() > scores[~is_loved].max() + 2


@of(case for case in RANKING if case.personal)
def test_a_checkerboard_is_ranked(case: Case) -> None:
    """From the squares of 5 alone, the hidden squares of 5 rank before those of 1; the order says nothing."""
    known, hidden = checkerboard()
    fives = np.random.default_rng(0).permutation(np.flatnonzero(known.ratings == 5))
    snapshot = fitted(case, known.take(fives))
    for user_row in range(len(known.users)):
        mine = hidden.user_rows == user_row
        loved = hidden.item_rows[mine & (hidden.ratings == 5)].astype(np.int64)
        others = np.arange(1 - user_row % 2, len(known.items), 2)
        scores = scoring.exact_scores(snapshot, user_row, np.concatenate([loved, others]))
        assert scores[: loved.size].min() > scores[loved.size :].max()


def test_the_snapshot_describes_the_model(case: Case) -> None:
    """Its name, all settings as JSON values, the scale, seen items, and popularity."""
    known, _ = checkerboard()
    snapshot = fitted(case, known)
    assert snapshot.algorithm == case.name
    assert snapshot.settings == hyperparameters.as_json(ConfiguredAlgorithm.parse(case.name, case.learning).config)
    assert (snapshot.rating_min, snapshot.rating_max) == (1.0, 5.0)
    assert snapshot.history.nnz == len(known)
    assert snapshot.popularity.tolist() == np.bincount(known.item_rows).tolist()
    for user_row in (0, 39):
        seen = sorted(known.item_rows[known.user_rows == user_row].tolist())
        assert snapshot.seen_rows(user_row).tolist() == seen


def test_publishing_changes_no_score(case: Case, tmp_path: Path) -> None:
    """Every score of the mapped model has the bits of the fitted model."""
    snapshot = fitted(case, datasets.read("demo:60x40x900"))
    version = publication.publish(tmp_path, snapshot, data={}, measures={})
    mapped = artefact.load(tmp_path / version)
    assert mapped.users.id_of == snapshot.users.id_of
    rows = np.arange(len(snapshot.items))
    for user_row in range(len(snapshot.users)):
        before, after = (scoring.exact_scores(model, user_row, rows) for model in (snapshot, mapped))
        assert before.tobytes() == after.tobytes()
    users, items = (axis.ravel() for axis in np.mgrid[0 : len(snapshot.users), 0 : len(snapshot.items)])
    before, after = (predicted(case, model, users, items) for model in (snapshot, mapped))
    assert before.tobytes() == after.tobytes()


def test_the_same_seed_gives_the_same_bytes(case: Case) -> None:
    """Another seed gives another model, unless nothing is random."""
    data = datasets.read("demo:60x40x900")
    first, same, other = (every_bit(fitted(case, data, seed=seed)) for seed in (0, 0, 1))
    assert first == same
    assert (first != other) == case.seeded


def test_threads_change_no_byte(case: Case) -> None:
    """Neither of the model nor of its predictions."""
    data = datasets.read("demo:300x200x9000")
    outcomes = []
    for n_threads in (1, 4):
        with threads.limit(n_threads):
            snapshot = fitted(case, data)
            predictions = predicted(case, snapshot, data.user_rows[:500], data.item_rows[:500][::-1])
            outcomes.append((every_bit(snapshot), predictions.tobytes()))
    assert outcomes[0] == outcomes[1]


def test_a_list_is_sorted_by_score(case: Case) -> None:
    """Unseen items by score, then popularity, then row, also of many users at once; similar ones exclude the item."""
    snapshot = fitted(case, datasets.read("demo:60x40x900"))
    rows = np.arange(len(snapshot.items))
    for user_row in (0, 7, 59):
        (ranking,) = scoring.personal(snapshot, [scoring.TopNRequest(user_row, 10)])
        scores = scoring.exact_scores(snapshot, user_row, rows)
        unseen = np.setdiff1d(rows, snapshot.seen_rows(user_row))
        assert (
            ranking.rows.tolist()
            == unseen[np.lexsort((unseen, -snapshot.popularity[unseen], -scores[unseen]))][:10].tolist()
        )
    assert 3 not in similar_list(snapshot, 3, 20).rows
    users = BulkUsers.of_model(snapshot)
    model = BulkModel(snapshot, ListRequest(10))
    lists = shard_lists(model.for_workers, ShardUsers.of(snapshot, users.ids, users.rows, {}))
    for user_row in range(len(users)):
        (ranking,) = personal_lists.personal(snapshot, [scoring.TopNRequest(user_row, 10)])
        count = ranking.rows.size
        assert lists.rows[user_row, :count].tolist() == ranking.rows.tolist()
        assert lists.scores[user_row, :count].tobytes() == ranking.scores.tobytes()


def test_erasing_a_user_changes_no_other_user(case: Case) -> None:
    """Others keep their histories and, unless users are neighbours, their scores."""
    snapshot = fitted(case, datasets.read("demo:60x40x900"))
    without = erased_users.without_users(snapshot, [5])
    rows = np.arange(len(snapshot.items))
    assert without.users.id_of == [*snapshot.users.id_of[:5], *snapshot.users.id_of[6:]]
    assert without.seen_rows(5).tolist() == snapshot.seen_rows(6).tolist()
    after = scoring.exact_scores(without, 5, rows)
    assert np.isfinite(after).all()
    if snapshot.neighbourhood is None or snapshot.neighbourhood.over == "items":
        assert after.tobytes() == scoring.exact_scores(snapshot, 6, rows).tobytes()


def test_a_fit_does_not_change_its_data(case: Case) -> None:
    """The arrays have the same bytes before and after."""
    data = datasets.read("demo:60x40x900")
    before = [array.copy() for array in (data.user_rows, data.item_rows, data.ratings)]
    fitted(case, data)
    for array, copy in zip((data.user_rows, data.item_rows, data.ratings), before, strict=True):
        assert array.tobytes() == copy.tobytes()


def test_progress_counts_from_nothing_to_all(case: Case) -> None:
    """Epochs one by one, other units in any steps."""
    steps: list[tuple[str, int, int]] = []
    config = ConfiguredAlgorithm.parse(case.name, case.learning).config
    data = datasets.read("demo:60x40x900")
    registry.get(case.name).fit(data, config, np.random.default_rng(0), lambda *step: steps.append(step))
    stages, counts, totals = zip(*steps, strict=True)
    assert (set(stages), set(totals)) == ({"fit"}, {counts[-1]})
    assert counts[0] == 0
    assert list(counts) == sorted(counts)
    if case.name in {"svd", "svdpp", "ials", "softmax"}:
        assert list(counts) == list(range(config.n_epochs + 1))


@of(RATING)
def test_unknown_users_and_items_get_the_known_baseline(case: Case) -> None:
    """A user without ratings gets the item's baseline if there is one; both unknown get the mean."""
    users = np.array([0, 0, 0, 1, 1, 1, 2])
    items = np.array([0, 1, 2, 0, 1, 2, 3])
    data = interactions(users, items, np.array([5.0, 3.0, 1.0, 5.0, 3.0, 1.0, 3.0]))
    # Only the last rating, left out here, names user 2 and item 3.
    snapshot = fitted(case, data.take(np.arange(6)))
    pairs = np.array([[2, 0], [2, 1], [2, 2], [2, 3], [0, 3]])
    liked, fair, disliked, both_unknown, unknown_item = predicted(case, snapshot, *pairs.T)
    if case.unknown == "baseline":
        assert liked > fair > disliked
    else:
        assert (liked, fair, disliked) == pytest.approx((3.0, 3.0, 3.0), abs=0.01)
    assert both_unknown == pytest.approx(3.0, abs=0.01)
    assert unknown_item == pytest.approx(3.0, abs=0.5)
    assert not snapshot.user_factors[2].any()
    assert not snapshot.item_factors[3].any()


def on_another_scale(data: Interactions, factor: float, shift: float = 0.0) -> Interactions:
    ratings = (data.ratings.astype(np.float64) * factor + shift).astype(np.float32)
    low, high = float(ratings.min()), float(ratings.max())
    return dataclasses.replace(data, ratings=ratings, rating_min=low, rating_max=high)


def error_on(case: Case, data: Interactions, factor: float, shift: float = 0.0) -> float:
    """Return the error on a hold-out of scaled data, in the original unit."""
    scaled = on_another_scale(data, factor, shift)
    learnt, judged = splits.hold_out(len(data), 0.2, np.random.default_rng(0)) or pytest.fail("too little data")
    candidate = ConfiguredAlgorithm.parse(case.name, ["n_samples=20"] if case.name == "bayesian_mf" else [])
    snapshot = candidate.algorithm.fit(scaled.take(learnt), candidate.config, np.random.default_rng(0), no_progress)
    hidden = scaled.take(judged)
    assert (snapshot.rating_min, snapshot.rating_max) == (scaled.rating_min, scaled.rating_max)
    scores = scoring.exact_scores(snapshot, 0, np.arange(len(data.items)))
    assert np.isfinite(scores).all()
    return rmse(predicted(case, snapshot, hidden.user_rows, hidden.item_rows), hidden.ratings) / factor


@of(RATING)
def test_errors_scale_with_the_ratings(case: Case) -> None:
    """From 0 to 1, to 100, negative, huge or tiny."""
    data = datasets.read("demo:150x80x3000")
    error = error_on(case, data, 1)
    for factor in (20, 0.2, 1e30, 1e-20):
        assert error_on(case, data, factor) == pytest.approx(error, rel=2e-3), factor
    # A shifted scale changes results slightly, for algorithms that compare ratings with 0.
    for factor, shift in ((4, -10.5), (1, 90)):
        assert error_on(case, data, factor, shift) == pytest.approx(error, rel=0.1), (factor, shift)


@of(RATING)
@pytest.mark.parametrize("rating", [1.0, 0.0, -3.0, 1e30])
def test_equal_ratings_are_predicted(case: Case, rating: float) -> None:
    """A constant is learnt, whatever it is."""
    data = datasets.read("demo:60x40x900")
    scaled = on_another_scale(data, 0, rating)
    snapshot = fitted(case, scaled)
    predictions = predicted(case, snapshot, data.user_rows[:50], data.item_rows[50:100])
    assert predictions == pytest.approx(np.full(50, rating), rel=0.05, abs=0.05)


@of(RANKING)
def test_lists_do_not_depend_on_the_scale(case: Case) -> None:
    """Ranking algorithms ignore ratings."""
    data = datasets.read("demo:60x40x900")
    first, other = (fitted(case, on_another_scale(data, factor)) for factor in (1, 20))
    rows = np.arange(len(data.items))
    assert scoring.exact_scores(first, 3, rows).tobytes() == scoring.exact_scores(other, 3, rows).tobytes()


def test_a_single_interaction_is_enough(case: Case) -> None:
    """One user, one item, one rating."""
    one = np.zeros(1, dtype=np.int64)
    snapshot = fitted(case, interactions(one, one, np.array([4.0])))
    assert np.isfinite(scoring.exact_scores(snapshot, 0, one)).all()
    if case in RATING:
        assert predicted(case, snapshot, one, one)[0] == pytest.approx(4.0, abs=0.1)


@of(RATING)
def test_predictions_stay_on_the_scale(case: Case) -> None:
    """They are clipped to the rating scale."""
    known, hidden = checkerboard()
    predictions = predicted(case, fitted(case, known), hidden.user_rows, hidden.item_rows)
    assert predictions.min() >= 1.0
    assert predictions.max() <= 5.0


@of(case for case in ENROLLED if case.diverging)
def test_divergence_is_an_error_that_names_the_settings(case: Case) -> None:
    """No model with infinite factors is returned."""
    known, _ = checkerboard()
    with pytest.raises(TrainingDiverged, match=case.diverging[0]):
        fitted(case, known, more=case.diverging)


def test_bad_settings_are_refused(case: Case) -> None:
    """Out of range, of another type, unknown, or no assignment at all."""
    for text in (*case.refused, "no_such_setting=1", "n_epochs"):
        with pytest.raises(UsageError, match=text.partition("=")[0]):
            ConfiguredAlgorithm.parse(case.name, [text])
