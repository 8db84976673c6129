"""What a request says of its user: features, with a session or without one."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from service.lists.item_scores import ListUser
from service.lists.list_request import ListRequest
from service.lists.request_user import feature_use, known_features, request_user
from service.lists.sessions import SessionItem, with_session
from service.models.fold_in.fold_in import fold_in
from service.models.history.user_history import NO_HISTORY
from service.models.snapshot import ModelSnapshot
from tests.support.models.attribute_columns import ListedColumns
from tests.support.networks import tiny_networks

MakeSnapshot = Callable[..., ModelSnapshot]
COLUMNS = ListedColumns([{"genres": ["Comedy" if row % 2 else "Horror"], "year": 1990 + row} for row in range(60)])
# The ages of the users are 20, 30 and 40, and their genders F and M, which are the categories 1 and 2.
THIRTY_F, UNKNOWN = [2, 1], [0, 0]


@pytest.fixture
def snapshot(make_snapshot: MakeSnapshot) -> ModelSnapshot:
    return tiny_networks.with_features(make_snapshot(n_items=60))


def asked(**features: object) -> ListRequest:
    return ListRequest.from_fields({"n": 5, "user_features": features}, None)


def assert_computed(user: ListUser | None, snapshot: ModelSnapshot, row: int | None, categories: list[int]) -> None:
    """The user is the one that the tower computes from these categories and the user's history."""
    assert user is not None
    assert user.representation is not None
    history = user.known_history(snapshot)
    expected = fold_in(snapshot, history, row, np.array(categories, dtype=np.int32))
    assert expected is not None
    assert user.representation.factors.tobytes() == expected.factors.tobytes()
    assert user.representation.constant == expected.constant


def test_a_visitor_of_whom_only_features_are_known(snapshot: ModelSnapshot) -> None:
    user = request_user(snapshot, COLUMNS, None, asked(age=35, gender="F"), 5.0)
    assert_computed(user, snapshot, None, THIRTY_F)
    assert user is not None
    assert (user.row, user.is_known, user.known_history(snapshot).rows.size) == (None, True, 0)
    assert user.representation is not None
    assert user.representation.seen.size == 0


def test_features_replace_those_of_a_known_user(snapshot: ModelSnapshot) -> None:
    """And what is not given stays; null takes a value back. History and seen items stay, too."""
    assert snapshot.user_attributes is not None
    assert snapshot.user_attributes[1].tolist() == [2, 2]
    for features, categories in (
        ({"gender": "F"}, THIRTY_F),
        ({"age": 50}, [3, 2]),
        ({"age": None}, [0, 2]),
        ({"gender": "X"}, [2, 0]),
    ):
        user = request_user(snapshot, COLUMNS, ListUser(1), asked(**features), 5.0)
        assert_computed(user, snapshot, 1, categories)
        assert user is not None
        assert user.known_history(snapshot).rows.tolist() == snapshot.user_history(1).rows.tolist()
        assert user.seen_rows(snapshot).tolist() == snapshot.seen_rows(1).tolist()
    assert snapshot.user_attributes[1].tolist() == [2, 2]


def test_a_user_with_live_events_keeps_them(snapshot: ModelSnapshot) -> None:
    live = ListUser(1, fold_in(snapshot, NO_HISTORY, 1), history=NO_HISTORY, shown={3: 2})
    user = request_user(snapshot, COLUMNS, live, asked(gender="F"), 5.0)
    assert_computed(user, snapshot, 1, THIRTY_F)
    assert user is not None
    assert user.history is NO_HISTORY
    assert user.shown == {3: 2}


@pytest.mark.parametrize("row", [None, 1])
def test_features_and_session_count_together(snapshot: ModelSnapshot, row: int | None) -> None:
    request = asked(age=30, gender="F")._replace(session=(SessionItem("i3"), SessionItem("unknown")))
    before = None if row is None else ListUser(row)
    user = request_user(snapshot, COLUMNS, before, request, 5.0)
    assert_computed(user, snapshot, row, THIRTY_F)
    session = with_session(snapshot, before, request.session, 5.0)
    assert user is not None
    assert session is not None
    assert user.known_history(snapshot).rows.tolist() == session.known_history(snapshot).rows.tolist()
    assert user.source == "session"
    # A session of which the model knows nothing leaves the features alone.
    request = request._replace(session=(SessionItem("unknown"),))
    assert_computed(request_user(snapshot, COLUMNS, before, request, 5.0), snapshot, row, THIRTY_F)


def test_features_that_the_model_does_not_know_change_nothing(
    snapshot: ModelSnapshot, make_snapshot: MakeSnapshot
) -> None:
    """Nor do any in a model without networks, or where there is no time to compute the user."""
    user = ListUser(1)
    assert request_user(snapshot, COLUMNS, user, asked(shoe_size=44), 5.0) is user
    assert request_user(make_snapshot(n_items=60), COLUMNS, user, asked(age=30), 5.0) is user
    assert request_user(snapshot, COLUMNS, user, asked(age=30)._replace(level="cluster"), 5.0) is user
    assert request_user(snapshot, COLUMNS, None, asked(shoe_size=44), 5.0) is None


def test_the_use_of_features_is_told(snapshot: ModelSnapshot, make_snapshot: MakeSnapshot) -> None:
    request = asked(shoe_size=44, age=30, gender="X")
    assert feature_use(snapshot, COLUMNS, request) == (["age"], ["shoe_size", "gender"])
    assert feature_use(snapshot, COLUMNS, request._replace(level="popular")) == ([], ["shoe_size", "gender"])
    assert feature_use(make_snapshot(), COLUMNS, request) == ([], ["shoe_size", "age", "gender"])
    assert known_features(snapshot, COLUMNS) == ["age", "favourite_genres", "gender"]
    assert known_features(make_snapshot(), COLUMNS) == []


def test_users_without_published_attributes_have_unknown_ones(snapshot: ModelSnapshot) -> None:
    """As in a model whose data had attributes of items alone."""
    bare = replace(snapshot, user_attributes=None)
    assert_computed(request_user(bare, COLUMNS, ListUser(1), asked(age=30), 5.0), bare, 1, [2, 0])
    assert_computed(request_user(bare, COLUMNS, ListUser(1), asked(age=None), 5.0), bare, 1, UNKNOWN)
