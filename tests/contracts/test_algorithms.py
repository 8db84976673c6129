"""What every algorithm promises. One line in `ENROLLED` enrols another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import TrainingDiverged, UsageError
from service.models import artefact, scoring
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.training import datasets
from service.training.algorithms import registry, settings
from service.training.algorithms.registry import Candidate
from service.training.interactions import Interactions, ReadReport, no_progress
from service.training.measures import rmse
from service.training.predictions import predict


@dataclass(frozen=True)
class Case:
    """An algorithm, settings that learn the checkerboard, settings that diverge, and settings to refuse."""

    name: str
    learning: tuple[str, ...]
    diverging: tuple[str, ...]
    refused: tuple[str, ...]


ENROLLED = [
    Case(
        "svd",
        ("n_factors=4", "n_epochs=400", "lr_all=0.02"),
        ("lr_all=9",),
        ("n_factors=0", "lr_all=-1", "reg_all=nan"),
    ),
]


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
    """Even users love even items and hate odd ones, odd users the other way round; 3 of 10 squares are hidden.

    No bias can tell: everybody's and everything's mean is the same. (Known squares, hidden squares.)
    """
    users, items = (axis.ravel() for axis in np.mgrid[0:n, 0:n])
    ratings = np.where((users + items) % 2 == 0, 5.0, 1.0)
    known = np.random.default_rng(0).random(users.size) > 0.3
    data = interactions(users, items, ratings)
    return data.take(np.flatnonzero(known)), data.take(np.flatnonzero(~known))


def fitted(case: Case, data: Interactions, *, seed: int = 0, more: tuple[str, ...] = ()) -> ModelSnapshot:
    candidate = Candidate.parse(case.name, (*case.learning, *more))
    return candidate.fit(data, candidate.config, np.random.default_rng(seed), no_progress)


def test_every_algorithm_is_enrolled() -> None:
    """None escapes this contract."""
    assert [case.name for case in ENROLLED] == registry.names()


def test_a_checkerboard_is_learnt(case: Case) -> None:
    """Where the right answer is plain, it is found: hidden squares, and the order of everybody's unseen items."""
    known, hidden = checkerboard()
    snapshot = fitted(case, known)
    assert rmse(predict(snapshot, hidden.user_rows, hidden.item_rows), hidden.ratings) < 0.25
    for user_row in range(len(known.users)):
        unseen = hidden.item_rows[hidden.user_rows == user_row]
        scores = scoring.exact_scores(snapshot, user_row, unseen.astype(np.int64))
        is_loved = unseen % 2 == user_row % 2
        assert scores[is_loved].min() > scores[~is_loved].max() + 2


def test_the_model_says_what_it_is(case: Case) -> None:
    """Its name, all settings as JSON values, the scale, what users have seen, and how often items were."""
    known, _ = checkerboard()
    snapshot = fitted(case, known)
    assert snapshot.algorithm == case.name
    assert snapshot.settings == settings.as_json(Candidate.parse(case.name, case.learning).config)
    assert (snapshot.rating_min, snapshot.rating_max) == (1.0, 5.0)
    assert snapshot.history.nnz == len(known)
    assert snapshot.popularity.tolist() == np.bincount(known.item_rows).tolist()
    for user_row in (0, 39):
        seen = sorted(known.item_rows[known.user_rows == user_row].tolist())
        assert snapshot.seen_rows(user_row).tolist() == seen


def test_publishing_changes_no_score(case: Case, tmp_path: Path) -> None:
    """Every score of the mapped model is the fitted model's, bit for bit."""
    snapshot = fitted(case, datasets.read("demo:60x40x900"))
    version = artefact.publish(tmp_path, snapshot, data={}, measures={})
    mapped = artefact.load(tmp_path / version)
    assert mapped.users.id_of == snapshot.users.id_of
    rows = np.arange(len(snapshot.items))
    for user_row in range(len(snapshot.users)):
        before, after = (scoring.exact_scores(model, user_row, rows) for model in (snapshot, mapped))
        assert before.tobytes() == after.tobytes()
    users, items = (
        axis.ravel().astype(np.int32) for axis in np.mgrid[0 : len(snapshot.users), 0 : len(snapshot.items)]
    )
    assert predict(snapshot, users, items).tobytes() == predict(mapped, users, items).tobytes()


def test_a_seed_decides_everything(case: Case) -> None:
    """The same data, settings and seed give the same bytes; another seed gives another model."""
    data = datasets.read("demo:60x40x900")
    first, same, other = fitted(case, data), fitted(case, data), fitted(case, data, seed=1)
    for name in ("user_factors", "item_factors", "user_bias", "item_bias"):
        assert getattr(first, name).tobytes() == getattr(same, name).tobytes()
    assert first.user_factors.tobytes() != other.user_factors.tobytes()


def test_the_data_is_not_touched(case: Case) -> None:
    """A fit leaves the arrays it was given as they were."""
    data = datasets.read("demo:60x40x900")
    before = [array.copy() for array in (data.user_rows, data.item_rows, data.ratings)]
    fitted(case, data)
    for array, copy in zip((data.user_rows, data.item_rows, data.ratings), before, strict=True):
        assert array.tobytes() == copy.tobytes()


def test_the_unknown_is_predicted_by_what_is_known(case: Case) -> None:
    """A user without ratings gets the item's level, an item without ratings the user's, both unknown the mean."""
    users = np.array([0, 0, 0, 1, 1, 1, 2])
    items = np.array([0, 1, 2, 0, 1, 2, 3])
    data = interactions(users, items, np.array([5.0, 3.0, 1.0, 5.0, 3.0, 1.0, 3.0]))
    # The last rating alone names user 2 and item 3.
    snapshot = fitted(case, data.take(np.arange(6)))
    pairs = np.array([[2, 0], [2, 1], [2, 2], [2, 3], [0, 3]], dtype=np.int32)
    loved, fair, hated, nothing_known, unknown_item = predict(snapshot, *np.ascontiguousarray(pairs.T))
    assert loved > fair + 0.5 > hated + 1.0
    assert nothing_known == pytest.approx(3.0, abs=0.01)
    assert unknown_item == pytest.approx(3.0, abs=0.5)
    assert not snapshot.user_factors[2].any()
    assert not snapshot.item_factors[3].any()


def test_a_single_rating_is_enough(case: Case) -> None:
    """One user, one item, one rating."""
    one = np.zeros(1, dtype=np.int64)
    snapshot = fitted(case, interactions(one, one, np.array([4.0])))
    assert predict(snapshot, *np.zeros((2, 1), dtype=np.int32))[0] == pytest.approx(4.0, abs=0.1)


def test_predictions_stay_on_the_scale(case: Case) -> None:
    """Clipped to the least and the largest rating."""
    known, hidden = checkerboard()
    predicted = predict(fitted(case, known), hidden.user_rows, hidden.item_rows)
    assert predicted.min() >= 1.0
    assert predicted.max() <= 5.0


def test_divergence_is_an_error_that_names_the_settings(case: Case) -> None:
    """Factors that are not finite are never returned."""
    known, _ = checkerboard()
    with pytest.raises(TrainingDiverged, match=case.diverging[0]):
        fitted(case, known, more=case.diverging)


def test_bad_settings_are_refused(case: Case) -> None:
    """Out of range, of another type, unknown, or no assignment at all."""
    for text in (*case.refused, "no_such_setting=1", "n_epochs"):
        with pytest.raises(UsageError, match=text.partition("=")[0]):
            Candidate.parse(case.name, [text])


def test_an_unknown_algorithm_is_refused() -> None:
    """The sentence names those that there are."""
    with pytest.raises(UsageError, match=r"no algorithm 'svdd'; there is svd"):
        Candidate.parse("svdd")
