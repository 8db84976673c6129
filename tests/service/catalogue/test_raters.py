"""Who likes a new item, and what that says of it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from service.catalogue import raters
from service.catalogue.live_items import LiveItems
from service.catalogue.raters import Action, RaterIndex, RaterState, UserRows, key_of, liking_rows
from service.catalogue.served_model import ServedModel
from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.models.neighbourhood import Neighbourhood
from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from telemetry.batch import EventPosition
from telemetry.pseudonym import Pseudonymiser
from tests.support.sample_events import item_change

LIKED = Action(1, "click", None)


def test_of_a_users_actions_one_counts() -> None:
    """The one of the highest rank, and of those the latest, in any order of arrival."""
    actions = [Action(5, "click", None), Action(3, "rating", 4.0), Action(4, "rating", 1.0), Action(9, "view", None)]
    for order in (actions, actions[::-1]):
        index = RaterIndex()
        for action in order:
            index.add("a", 7, action)
        assert index.copy().raters == {"a": {7: Action(4, "rating", 1.0)}}
        before = index.revision
        index.add("a", 7, Action(3, "rating", 4.0))
        assert index.revision == before


def test_the_index_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was added first is forgotten first; an erased user is forgotten everywhere."""
    monkeypatch.setattr(raters, "MAX_ITEMS", 2)
    monkeypatch.setattr(raters, "MAX_RATERS", 2)
    index = RaterIndex()
    for item in "abc":
        for user in ("u", "v", "w"):
            index.add(item, key_of(user), LIKED)
    found = {item: list(users) for item, users in index.copy().raters.items()}
    assert found == {item: [key_of("v"), key_of("w")] for item in "bc"}
    index.forget("w", 0)
    assert {item: list(users) for item, users in index.copy().raters.items()} == {item: [key_of("v")] for item in "bc"}


def test_users_are_found_by_id_and_by_pseudonym(make_snapshot: Callable[..., ModelSnapshot]) -> None:
    """Only those who like the item: of ratings, those from the middle of the scale on."""
    model = make_snapshot()
    pseudonyms = Pseudonymiser(b"0123456789abcdef0123456789abcdef")
    actions = {
        key_of(pseudonyms.pseudonym("u1")): Action(1, "rating", 3.0),
        key_of(pseudonyms.pseudonym("u2")): Action(1, "rating", 2.5),
        key_of("u3"): LIKED,
        key_of("u4"): Action(1, "dismiss", None),
        key_of("stranger"): LIKED,
    }
    assert liking_rows(actions, UserRows(model.users.id_of, pseudonyms), model).tolist() == [1, 3]
    assert UserRows([], Pseudonymiser()).of([1]).size == 0


N_USERS, N_ITEMS = 60, 40


@pytest.fixture
def model(make_snapshot: Callable[..., ModelSnapshot]) -> ModelSnapshot:
    """Users of even number like items of even number, those of odd number the others; all items are of one genre."""
    rng = np.random.default_rng(3)
    seen = (np.arange(N_USERS)[:, np.newaxis] % 2 == np.arange(N_ITEMS) % 2) & (rng.random((N_USERS, N_ITEMS)) < 0.5)
    users = np.eye(2)[np.arange(N_USERS) % 2] + rng.normal(0, 0.05, (N_USERS, 2))
    items = np.eye(2)[np.arange(N_ITEMS) % 2] + rng.normal(0, 0.05, (N_ITEMS, 2))
    return replace(
        make_snapshot(n_users=N_USERS, n_items=N_ITEMS, k=2),
        users=Vocabulary(f"u{row}" for row in range(N_USERS)),
        user_factors=users.astype(np.float32),
        item_factors=items.astype(np.float32),
        user_bias=np.zeros(N_USERS, np.float32),
        item_bias=np.zeros(N_ITEMS, np.float32),
        rating_min=1.0,
        rating_max=1.0,
        history=csr_array(seen.astype(np.float32)),
        item_records=ItemRecords.of(ItemRecord(None, {"genres": ["Drama"]}) for _ in range(N_ITEMS)),
    )


def as_neighbours(model: ModelSnapshot) -> ModelSnapshot:
    """The same taste as weights between items of equal parity."""
    parity = np.arange(N_ITEMS) % 2
    weights = ((parity[:, np.newaxis] == parity) & ~np.eye(N_ITEMS, dtype=bool)).astype(np.float32)
    return replace(
        model,
        user_factors=np.zeros((N_USERS, 0), np.float32),
        item_factors=np.zeros((N_ITEMS, 0), np.float32),
        global_mean=0.0,
        neighbourhood=Neighbourhood("items", "sum", "seen", csr_array(weights)),
    )


@pytest.mark.parametrize("form", ["factors", "neighbours"])
def test_the_first_who_like_an_item_place_it(model: ModelSnapshot, form: str) -> None:
    """Its attributes say nothing; once even users like it, other even users get it before odd ones do."""
    served = model if form == "factors" else as_neighbours(model)
    items = LiveItems()
    items.accept([item_change(item_id="new", attributes={"genres": ["Drama"]})], EventPosition("p", 1, 1))
    new = np.array([N_ITEMS])

    def scores(n_raters: int) -> tuple[float, float]:
        known = {"new": {key_of(f"u{2 * row}"): LIKED for row in range(n_raters)}}
        snapshot = ServedModel(served, items, None, RaterState(known, {})).snapshot
        assert snapshot.popularity[N_ITEMS] == n_raters
        even, odd = (float(scoring.exact_scores(snapshot, user, new)[0]) for user in (58, 59))
        return even - snapshot.global_mean, odd - snapshot.global_mean

    without, few, many = scores(0), scores(3), scores(20)
    assert abs(without[0] - without[1]) < 0.3 * max(without)
    assert few[0] > few[1]
    assert many[0] > 2 * max(many[1], 0.0)
    assert many[0] > few[0]
