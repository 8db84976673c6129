"""Sessions: the history that a list is computed from."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from service.lists.item_scores import ListUser
from service.lists.sessions import SessionItem, with_session
from service.models.fold_in.fold_in import fold_in
from service.models.fold_in.settings import FoldIn
from service.models.history.user_history import CLICK, DISMISS, PURCHASE, RATING, VIEW
from service.models.history.weights import HistoryWeights
from service.models.snapshot import ModelSnapshot

MakeSnapshot = Callable[..., ModelSnapshot]


@pytest.fixture
def snapshot(make_snapshot: MakeSnapshot) -> ModelSnapshot:
    """A model that folds in, with times of training interactions."""
    made = make_snapshot(n_items=60)
    how = FoldIn("decayed_sum", HistoryWeights(half_life=2.0, type_weights=(1, 1, 0.8, 0.6, -0.2)))
    times = np.arange(made.history.nnz, dtype=np.int64)
    return replace(made, fold_in=how, history_times=times)


def test_a_session_follows_the_training_interactions(snapshot: ModelSnapshot) -> None:
    """In its order, at the time of the request, with the value of each type; unknown items are left out."""
    trained = snapshot.user_history(1)
    new = [row for row in range(60) if row not in trained.rows][:3]
    ids = [snapshot.items.id_of[row] for row in new]
    session = [
        SessionItem(ids[0]),
        SessionItem("unknown", "purchase"),
        SessionItem(ids[1], "rating", 4.5),
        SessionItem(ids[2], "dismiss"),
    ]
    user = with_session(snapshot, ListUser(1), session, 1e9 + 0.7)
    assert user is not None
    assert user.history is not None
    assert user.history.rows.tolist() == [*trained.rows.tolist(), *new]
    assert user.history.values.tolist()[-3:] == [3.0, 4.5, 1.0]
    assert user.history.types.tolist()[-3:] == [VIEW, RATING, DISMISS]
    assert user.history.times_s is not None
    assert user.history.times_s.tolist()[-3:] == [10**9] * 3
    assert user.source == "session"
    expected = fold_in(snapshot, user.history)
    assert expected is not None
    assert user.representation is not None
    assert user.representation.factors.tolist() == expected.factors.tolist()
    assert user.representation.seen.tolist() == sorted({*snapshot.seen_rows(1).tolist(), *new})


def test_the_latest_place_and_the_strongest_type_of_an_item_count(snapshot: ModelSnapshot) -> None:
    """Looking again at a rated item moves it to the end and keeps its rating; a purchase is stronger than a click."""
    trained = snapshot.user_history(1)
    rated, new = int(trained.rows[0]), next(row for row in range(60) if row not in trained.rows)
    ids = snapshot.items.id_of
    session = [
        SessionItem(ids[rated], "view"),
        SessionItem(ids[new], "click"),
        SessionItem(ids[new], "purchase"),
        SessionItem(ids[new], "click"),
    ]
    user = with_session(snapshot, ListUser(1), session, 5.0)
    assert user is not None
    assert user.history is not None
    assert user.history.rows.tolist() == [*trained.rows.tolist()[1:], rated, new]
    assert user.history.types.tolist()[-2:] == [RATING, PURCHASE]
    assert user.history.values.tolist()[-2:] == [float(trained.values[0]), 5.0]
    # The clock of the request is behind that of the history, and the session is the latest all the same.
    assert user.history.times_s is not None
    assert user.history.times_s.tolist()[-1] == int(trained.times_s.max()) if trained.times_s is not None else False


def test_a_visitor_without_a_user_is_the_session(snapshot: ModelSnapshot) -> None:
    """The list of the session alone."""
    user = with_session(snapshot, None, [SessionItem("i3", "click"), SessionItem("i4")], 5.0)
    assert user is not None
    assert user.history is not None
    assert (user.row, user.history.rows.tolist(), user.history.types.tolist()) == (None, [3, 4], [CLICK, VIEW])
    assert user.is_known
    assert with_session(snapshot, None, [SessionItem("unknown")], 5.0) is None


def test_a_model_that_does_not_fold_in_leaves_the_items_out(make_snapshot: MakeSnapshot) -> None:
    """The list is that of the user, or the popular one, without them."""
    model = make_snapshot(n_items=60)
    assert model.fold_in is None
    visitor = with_session(model, None, [SessionItem("i3")], 5.0)
    assert visitor is not None
    assert (visitor.is_known, visitor.seen_rows(model).tolist(), visitor.source) == (False, [3], "personal")
    user = with_session(model, ListUser(1), [SessionItem("i3")], 5.0)
    assert user is not None
    assert user.is_known
    assert set(user.seen_rows(model).tolist()) == {3, *model.seen_rows(1).tolist()}
