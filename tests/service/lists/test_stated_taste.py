"""Favourite categories that a request states."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from service.lists.item_scores import ListUser
from service.lists.list_request import ListRequest
from service.lists.request_user import feature_use, known_features, request_user
from service.lists.sessions import SessionItem
from service.lists.stated_taste import taste_rows
from service.models.fold_in.fold_in import fold_in
from service.models.fold_in.settings import FoldIn
from service.models.history.user_history import RATING, UserHistory
from service.models.history.weights import HistoryWeights
from service.models.snapshot import ModelSnapshot
from tests.support.models.attribute_columns import ListedColumns

MakeSnapshot = Callable[..., ModelSnapshot]
GENRES = ["Comedy", "Drama", "Horror"]
COLUMNS = ListedColumns(
    [{"genres": [GENRES[row % 3], "Long"] if row % 6 == 0 else [GENRES[row % 3]], "year": row} for row in range(60)]
)


@pytest.fixture(params=[True, False])
def snapshot(request: pytest.FixtureRequest, make_snapshot: MakeSnapshot) -> ModelSnapshot:
    """A model that folds in, with and without times."""
    made = make_snapshot(n_items=60)
    times = np.arange(made.history.nnz, dtype=np.int64) + 1000 if request.param else None
    return replace(made, fold_in=FoldIn("decayed_sum", HistoryWeights(half_life=20.0)), history_times=times)


def asked(**features: object) -> ListRequest:
    return ListRequest.from_fields({"n": 5, "user_features": features}, None)


def best(snapshot: ModelSnapshot, rows: list[int], n: int = 10) -> list[int]:
    """Return the most popular rows, the most popular first."""
    return sorted((row for row in rows if snapshot.popularity[row] > 0), key=lambda r: snapshot.popular_ranks[r])[:n]


def test_the_most_popular_items_of_a_category_stand_for_it(snapshot: ModelSnapshot) -> None:
    """The most popular last; an item without interactions stands for nothing."""
    popularity = snapshot.popularity.copy()
    popularity[5] = 0
    snapshot = replace(snapshot, popularity=popularity)
    horror = best(snapshot, list(range(2, 60, 3)))
    assert len(horror) == 10
    assert taste_rows(snapshot, COLUMNS, {"favourite_genres": ["Horror"]}).tolist() == horror[::-1]
    # One text is as good as a list of one.
    assert taste_rows(snapshot, COLUMNS, {"favourite_genres": "Horror"}).tolist() == horror[::-1]


def test_categories_take_turns(snapshot: ModelSnapshot) -> None:
    """Each item once, whatever its categories; unknown ones are left out."""
    snapshot = replace(snapshot, popularity=snapshot.popularity + np.float32(1))
    comedy, long = best(snapshot, list(range(0, 60, 3))), best(snapshot, list(range(0, 60, 6)))
    turns = [row for turn in zip(comedy, long, strict=True) for row in turn]
    expected = list(dict.fromkeys(turns))[::-1]
    given = {"favourite_genres": ["Comedy", "Western", "Long", "Comedy"]}
    assert taste_rows(snapshot, COLUMNS, given).tolist() == expected


@pytest.mark.parametrize("value", [None, 3, True, "Western", [], ["horror"]])
def test_other_values_are_no_taste(snapshot: ModelSnapshot, value: object) -> None:
    request = asked(favourite_genres=value, favourite_year="7", genres="Horror", favourite_="Horror")
    assert request_user(snapshot, COLUMNS, None, request, 5.0) is None
    assert feature_use(snapshot, COLUMNS, request).used == []


def test_a_user_nobody_has_seen_is_the_taste(snapshot: ModelSnapshot) -> None:
    """Computed as from the best ratings of its items, which may be listed."""
    request = asked(favourite_genres=["Horror"])
    user = request_user(snapshot, COLUMNS, None, request, 5.0)
    assert user is not None
    rows = np.array(best(snapshot, list(range(2, 60, 3)))[::-1], dtype=np.int32)
    values = np.full(10, snapshot.rating_max, dtype=np.float32)
    expected = fold_in(snapshot, UserHistory(rows, values, np.full(10, RATING, np.uint8)))
    assert expected is not None
    assert user.representation is not None
    assert user.representation.factors.tobytes() == expected.factors.tobytes()
    assert (user.row, user.seen_rows(snapshot).size, user.source) == (None, 0, "personal")
    assert feature_use(snapshot, COLUMNS, request) == (["favourite_genres"], [])
    assert known_features(snapshot, COLUMNS) == ["favourite_genres"]


def test_a_taste_comes_before_what_the_user_did(snapshot: ModelSnapshot) -> None:
    """An item of the history stays at its place, and seen items are those of the user."""
    trained = snapshot.user_history(1)
    user = request_user(snapshot, COLUMNS, ListUser(1, shown={4: 1}), asked(favourite_genres=["Horror"]), 5.0)
    assert user is not None
    assert user.history is not None
    stands = [row for row in best(snapshot, list(range(2, 60, 3)))[::-1] if row not in trained.rows]
    assert user.history.rows.tolist() == [*stands, *trained.rows.tolist()]
    assert user.history.values.tolist()[len(stands) :] == trained.values.tolist()
    assert user.seen_rows(snapshot).tolist() == snapshot.seen_rows(1).tolist()
    assert user.shown == {4: 1}
    if trained.times_s is not None:
        assert user.history.times_s is not None
        assert user.history.times_s.tolist() == [5] * len(stands) + trained.times_s.tolist()


def test_a_session_comes_after_the_taste(snapshot: ModelSnapshot) -> None:
    request = asked(favourite_genres=["Horror"])._replace(session=(SessionItem("i3"),))
    user = request_user(snapshot, COLUMNS, None, request, 5.0)
    assert user is not None
    assert user.history is not None
    row = snapshot.items.row_of["i3"]
    assert user.history.rows.tolist()[-1] == row
    assert user.history.rows.size >= 10
    assert user.seen_rows(snapshot).tolist() == [row]
    assert user.source == "session"


def test_without_time_or_fold_in_a_taste_changes_nothing(snapshot: ModelSnapshot) -> None:
    user, request = ListUser(1), asked(favourite_genres=["Horror"])
    assert request_user(snapshot, COLUMNS, user, request._replace(level="cluster"), 5.0) is user
    bare = replace(snapshot, fold_in=None)
    assert request_user(bare, COLUMNS, user, request, 5.0) is user
    assert feature_use(bare, COLUMNS, request) == ([], ["favourite_genres"])
    assert known_features(bare, COLUMNS) == []
