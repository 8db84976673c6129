"""The user of a list with what the request itself says of them: a session, and features.

Both need no events, and leave nothing behind. Features are attributes of the user, such as an age or a town, and
favourite categories (`stated_taste`). Attributes that are given replace what the model knows, and the rest stays; they
count in models that compute users by a network. The answer says which features counted. Pure.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.lists.filters.columns import Columns
from service.lists.item_scores import ListUser
from service.lists.list_request import ListRequest
from service.lists.sessions import with_session
from service.lists.stated_taste import is_known_taste, known_tastes, taste_rows, with_taste
from service.models.features.attribute_categories import GivenValue
from service.models.features.feature_encoder import FeatureEncoder
from service.models.fold_in.settings import NETWORK
from service.models.folded_user import folded_user
from service.models.history.user_history import NO_HISTORY
from service.models.snapshot import ModelSnapshot


class FeatureUse(NamedTuple):
    """What became of the features of a request, by name, in the order given.

    Attributes:
        used: The list answers to them.
        unknown: The model does not know the feature, or not this value of it.
    """

    used: list[str]
    unknown: list[str]


def request_user(
    snapshot: ModelSnapshot, columns: Columns, user: ListUser | None, request: ListRequest, now_s: float
) -> ListUser | None:
    """Return the user of a list after the session of the request, with its features.

    Args:
        snapshot: The model.
        columns: The attributes of its items.
        user: The user so far; None for an unknown one.
        request: What is asked for; at a reduced level there is no time to compute the user.
        now_s: The time of the request.
    """
    folds = request.level is None
    attributes = None
    if folds and request.user_features:
        attributes = _attributes(snapshot, None if user is None else user.row, request.user_features)
        taste = taste_rows(snapshot, columns, request.user_features)
        if taste.size or attributes is not None:
            user = _with_features(snapshot, user, taste, attributes, now_s)
    if request.session:
        return with_session(snapshot, user, request.session, now_s, folds=folds, attributes=attributes)
    return user


def feature_use(snapshot: ModelSnapshot, columns: Columns, request: ListRequest) -> FeatureUse:
    """Return what becomes of the features of a request."""
    given = request.user_features or {}
    encoder = _encoder(snapshot)
    unused = list(given) if encoder is None else encoder.unused(given)
    unknown = [name for name in unused if not is_known_taste(snapshot, columns, name, given[name])]
    used = [name for name in given if name not in unknown] if request.level is None else []
    return FeatureUse(used, unknown)


def known_features(snapshot: ModelSnapshot, columns: Columns) -> list[str]:
    """Return the names of the features that lists of a model answer to, ascending."""
    encoder = _encoder(snapshot)
    return sorted({*(() if encoder is None else encoder.user_names), *known_tastes(snapshot, columns)})


def _encoder(snapshot: ModelSnapshot) -> FeatureEncoder | None:
    """Return the encoder of a model that computes users by a network; None of any other."""
    is_network = snapshot.fold_in is not None and snapshot.fold_in.method == NETWORK
    return snapshot.networks.features if is_network and snapshot.networks is not None else None


def _attributes(snapshot: ModelSnapshot, row: int | None, given: Mapping[str, GivenValue]) -> NDArray[np.int32] | None:
    """Return the categories of a user with the given features: int32 (c,); None if the model has none of the names."""
    encoder = _encoder(snapshot)
    if encoder is None or given.keys().isdisjoint(encoder.user_names):
        return None
    known = None if row is None or snapshot.user_attributes is None else snapshot.user_attributes[row]
    return encoder.user(given, known)


def _with_features(
    snapshot: ModelSnapshot,
    user: ListUser | None,
    taste: NDArray[np.int32],
    attributes: NDArray[np.int32] | None,
    now_s: float,
) -> ListUser | None:
    history = NO_HISTORY if user is None else user.known_history(snapshot)
    row, shown = (None, {}) if user is None else (user.row, user.shown)
    seen = history.rows if user is None else user.seen_rows(snapshot)
    if taste.size:
        history = with_taste(snapshot, history, taste, now_s)
    folded = folded_user(snapshot, row, history, attributes)
    if folded is None:
        return user
    return ListUser(row, folded._replace(seen=np.unique(seen).astype(np.int32)), history=history, shown=shown)
