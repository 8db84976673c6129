"""Rows of new items: where attributes decide what users like, they place items that nobody has seen."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from service.catalogue.live_items import LiveItems
from service.catalogue.served_model import ServedModel
from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.models.neighbourhood import Neighbourhood
from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot
from telemetry.batch import EventPosition
from telemetry.events import ItemChange
from tests.support.sample_events import item_change

N_ITEMS = 40
GENRES = ("Comedy", "Drama", "War", "Crime")


def records() -> list[ItemRecord]:
    """Items 0 to 39 have the genres in turn."""
    return [ItemRecord(f"T{row}", {"genres": [GENRES[row % 4]], "year": 1950 + row}) for row in range(N_ITEMS)]


@pytest.fixture
def model(make_snapshot: Callable[..., ModelSnapshot]) -> ModelSnapshot:
    """Items are what their genre is, with some noise; user u likes genre u modulo 4."""
    base = make_snapshot(n_items=N_ITEMS, k=4)
    rng = np.random.default_rng(5)
    items = (np.eye(4)[np.arange(N_ITEMS) % 4] + rng.normal(0, 0.1, (N_ITEMS, 4))).astype(np.float32)
    return replace(
        base,
        user_factors=np.eye(4)[np.arange(7) % 4].astype(np.float32),
        item_factors=items,
        input_factors=2 * items,
        user_bias=np.zeros(7, np.float32),
        item_bias=np.zeros(N_ITEMS, np.float32),
        item_records=ItemRecords.of(records()),
    )


def written(*changes: ItemChange) -> LiveItems:
    items = LiveItems()
    items.accept(changes, EventPosition("p", 1, 1))
    return items


def new(item_id: str, **attributes: object) -> ItemChange:
    return item_change(item_id=item_id, attributes=attributes, available_until=None)


def test_without_new_items_the_model_itself_is_served(model: ModelSnapshot) -> None:
    """Changes of known items and removals of unknown ones need no row."""
    hidden = item_change(item_id="i3", hidden=True, title=None, attributes=None, available_until=None)
    served = ServedModel(model, written(hidden, item_change(item_id="unknown", kind="delete")))
    assert served.snapshot is model
    assert served.catalogue.unavailable_rows(0.0).tolist() == [3]
    assert served.catalogue.record(3).title == "T3"


def test_a_new_item_is_liked_by_those_who_like_its_genre(model: ModelSnapshot) -> None:
    """It scores as the known items of its genre do; rows are in the order of ids, the model's own stay as they are."""
    changes = written(new("z-war", genres=["War"]), new("a-comedy", genres=["Comedy"]), new("nothing", size=3))
    served = ServedModel(model, changes)
    snapshot = served.snapshot
    assert snapshot.items.id_of[N_ITEMS:] == ["a-comedy", "nothing", "z-war"]
    assert snapshot.version == model.version
    np.testing.assert_array_equal(snapshot.item_factors[:N_ITEMS], model.item_factors)
    likes = np.array([scoring.exact_scores(snapshot, user, np.arange(N_ITEMS, N_ITEMS + 3)) for user in range(4)])
    assert likes[:, 0].argmax() == 0
    assert likes[:, 2].argmax() == 2
    assert likes[0, 0] > snapshot.global_mean + 0.7
    # Nothing is known of an item without attributes that others have.
    np.testing.assert_array_equal(snapshot.item_factors[N_ITEMS + 1], 0)
    assert snapshot.input_factors is not None
    np.testing.assert_allclose(snapshot.input_factors[N_ITEMS:], 2 * snapshot.item_factors[N_ITEMS:], rtol=1e-4)
    # The user's list holds it, and the fast path and the exact routine agree.
    (ranking,) = scoring.personal(snapshot, [scoring.TopNRequest(0, 100)])
    assert N_ITEMS in ranking.rows[:12]
    np.testing.assert_array_equal(ranking.scores, scoring.exact_scores(snapshot, 0, ranking.rows))


def test_new_rows_stay_within_the_bounds_that_the_fast_path_relies_on(model: ModelSnapshot) -> None:
    """What was computed of users is kept, so no new item may be longer than the longest known one."""
    _ = model.max_exact_over_approx, model.user_constants, model.has_user_factors
    extreme = [new(f"n{index}", genres=list(GENRES), year=10**15) for index in range(5)]
    snapshot = ServedModel(model, written(*extreme)).snapshot
    assert vars(snapshot)["max_exact_over_approx"] is model.max_exact_over_approx
    assert float(snapshot.item_norms.max()) <= float(model.item_norms.max())
    fresh = replace(snapshot)
    assert (fresh.max_exact_over_approx <= model.max_exact_over_approx + 1e-12).all()


def test_a_catalogue_written_after_the_training_serves_new_items_too(model: ModelSnapshot) -> None:
    """The data had no titles; the records of known items were imported."""
    bare = replace(model, item_records=None)
    imported = [
        item_change(item_id=f"i{row}", attributes=dict(record.attributes), available_until=None)
        for row, record in enumerate(records())
    ]
    before = ServedModel(bare, written(*imported))
    after = ServedModel(bare, written(*imported, new("z-war", genres=["War"])), before)
    scores = [float(scoring.exact_scores(after.snapshot, user, np.array([N_ITEMS]))[0]) for user in range(4)]
    assert int(np.argmax(scores)) == 2


def test_the_same_changes_give_the_same_rows(model: ModelSnapshot) -> None:
    """In any order, and whether built at once or step by step."""
    changes = [new("b", genres=["War"]), new("a", genres=["Drama"]), new("c", year=1960)]
    at_once = ServedModel(model, written(*changes)).snapshot
    first = ServedModel(model, written(*changes[:1]))
    stepwise = ServedModel(model, written(*reversed(changes)), first).snapshot
    assert at_once.items.id_of == stepwise.items.id_of
    np.testing.assert_array_equal(at_once.item_factors, stepwise.item_factors)


def test_a_new_item_has_the_mean_weights_of_its_nearest(model: ModelSnapshot) -> None:
    """In a model with neighbour weights: users who saw items of the genre get it."""
    weights = np.zeros((N_ITEMS, N_ITEMS), np.float32)
    for row in range(N_ITEMS):
        # Each item leads to all others of its genre.
        weights[row, row % 4 :: 4] = 1.0
        weights[row, row] = 0.0
    seen = np.zeros((7, N_ITEMS), np.float32)
    seen[0, [0, 4]] = 1
    seen[1, [1, 5]] = 1
    neighbours = replace(
        model,
        user_factors=np.zeros((7, 0), np.float32),
        item_factors=np.zeros((N_ITEMS, 0), np.float32),
        input_factors=None,
        user_bias=np.zeros(7, np.float32),
        global_mean=0.0,
        history=csr_array(seen),
        neighbourhood=Neighbourhood("items", "sum", "seen", csr_array(weights)),
    )
    snapshot = ServedModel(neighbours, written(new("n", genres=["Comedy"], year=1952))).snapshot
    assert snapshot.neighbourhood is not None
    dense = snapshot.neighbourhood.weights.toarray()
    np.testing.assert_array_equal(dense[:N_ITEMS, :N_ITEMS], weights)
    assert dense[:N_ITEMS:4, N_ITEMS].min() > 0.2
    assert dense[1:N_ITEMS:4, N_ITEMS].max() < dense[0:N_ITEMS:4, N_ITEMS].min()
    lists = scoring.personal(snapshot, [scoring.TopNRequest(user, 60) for user in (0, 1)])
    scores = [float(ranking.scores[ranking.rows.tolist().index(N_ITEMS)]) for ranking in lists]
    assert scores[0] > scores[1]
