"""The contract of every algorithm; algorithm_cases.py enrols them."""

from pathlib import Path

import numpy as np
import pytest

from service.errors import TrainingDiverged, UsageError
from service.generation.bulk_users import BulkUsers
from service.generation.lists.list_model import BulkModel
from service.generation.lists.shard_lists import shard_lists
from service.generation.lists.shard_users import ShardUsers
from service.lists.list_request import ListRequest
from service.models.files import artefact, erased_users
from service.models.publication import publication
from service.models.ranking import personal_lists, scoring
from service.training import hyperparameters
from service.training.algorithms import registry
from service.training.algorithms.kernels import threads
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from tests.contracts.algorithm_cases import (
    CASES,
    ENROLLED,
    RANKING,
    RATING,
    SMALL,
    Case,
    checkerboard,
    every_bit,
    fitted,
    fitted_on_checkerboard,
    fitted_once,
    interactions,
    of,
    on_another_scale,
    predicted,
)
from tests.support.models.similar_list import similar_list


@pytest.fixture(params=ENROLLED, ids=[case.name for case in ENROLLED])
def case(request: pytest.FixtureRequest) -> Case:
    enrolled: Case = request.param
    return enrolled


def test_every_algorithm_is_enrolled() -> None:
    """The contract covers all algorithms."""
    assert [case.name for case in CASES] == registry.names()


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
    snapshot = fitted_on_checkerboard(case)
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
    snapshot = fitted_once(case)
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
    data = datasets.read(SMALL)
    first = every_bit(fitted_once(case))
    same, other = (every_bit(fitted(case, data, seed=seed)) for seed in (0, 1))
    assert first == same
    assert (first != other) == case.seeded


def test_threads_change_no_byte(case: Case) -> None:
    """Neither of the model nor of its predictions; each epoch computes the same, so that two show it."""
    data = datasets.read("demo:300x200x9000")
    more = ("n_epochs=2",) if any(text.startswith("n_epochs=") for text in case.learning) else ()
    outcomes = []
    for n_threads in (1, 4):
        with threads.limit(n_threads):
            snapshot = fitted(case, data, more=more)
            predictions = predicted(case, snapshot, data.user_rows[:500], data.item_rows[:500][::-1])
            outcomes.append((every_bit(snapshot), predictions.tobytes()))
    assert outcomes[0] == outcomes[1]


def test_a_list_is_sorted_by_score(case: Case) -> None:
    """Unseen items by score, then popularity, then row, also of many users at once; similar ones exclude the item."""
    snapshot = fitted_once(case)
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
    snapshot = fitted_once(case)
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
    data = datasets.read(SMALL)
    before = [array.copy() for array in (data.user_rows, data.item_rows, data.ratings)]
    fitted(case, data)
    for array, copy in zip((data.user_rows, data.item_rows, data.ratings), before, strict=True):
        assert array.tobytes() == copy.tobytes()


def test_progress_counts_from_nothing_to_all(case: Case) -> None:
    """Epochs one by one, other units in any steps."""
    steps: list[tuple[str, int, int]] = []
    config = ConfiguredAlgorithm.parse(case.name, case.learning).config
    data = datasets.read(SMALL)
    registry.get(case.name).fit(data, config, np.random.default_rng(0), lambda *step: steps.append(step))
    stages, counts, totals = zip(*steps, strict=True)
    assert (set(stages), set(totals)) == ({"fit"}, {counts[-1]})
    assert counts[0] == 0
    assert list(counts) == sorted(counts)
    if case.name in {"svd", "svdpp", "ials", "softmax"}:
        assert list(counts) == list(range(config.n_epochs + 1))


@of(RANKING)
def test_lists_do_not_depend_on_the_scale(case: Case) -> None:
    """Ranking algorithms ignore ratings."""
    data = datasets.read(SMALL)
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
