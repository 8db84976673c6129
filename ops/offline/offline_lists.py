"""Lists from the files of an installation, as a replica would answer them: no server has to run.

The active model, the state snapshot and the events that were archived since are read once. The lists are made by the
functions of the replica, from the same live state and the same item catalogue, and are recorded nowhere.
"""

import time
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from ops.offline.offline_model import OfflineModel
from service.api import wire
from service.config import Config
from service.errors import Invalid, RunError, UsageError, did_you_mean
from service.lists import item_scores, pipeline, retrieval
from service.lists.candidates import Candidates
from service.lists.filters.masks import FilterMasks
from service.lists.list_request import ListRequest
from service.lists.pipeline import ListModel
from service.live.live_users import LiveUser, LiveUsers, list_user
from service.models.items.record import ItemRecord
from service.models.snapshot import ModelSnapshot
from service.serving.lists.ranked_list import RankedList


class Prediction(NamedTuple):
    """What a model says of one user and one item.

    Attributes:
        score: The score that orders lists.
        place: The place of the item, from 1, in a list of all items.
        n_items: The number of items.
        has_seen: Whether the user has seen the item, so that lists leave it out.
    """

    score: float
    place: int
    n_items: int
    has_seen: bool


class OfflineLists:
    """The active model of an installation with the live state on the disk.

    Raises:
        ModelMissing: No model is active.
        ModelRefused: The active model fails its checks.
        RunError: The state or the archive cannot be read.
    """

    def __init__(self, config: Config) -> None:
        self._model = OfflineModel(config)
        self._users = LiveUsers(self._model.state, config.live_lists.seen)

    @property
    def snapshot(self) -> ModelSnapshot:
        """The active model, with rows for the items that it was not trained on."""
        return self._model.snapshot

    def record(self, item_id: str) -> ItemRecord:
        """Return what is known of an item.

        Raises:
            UsageError: There is no such item.
        """
        return self._model.catalogue.record(self._item_row(item_id))

    def answer(self, request: ListRequest) -> wire.Recommendations:
        """Make a list; its `recommendation_id` is None, because it is not recorded as served.

        Raises:
            UsageError: The filter is wrong, or there is no item that the list is to be like.
        """
        snapshot, catalogue = self._model.snapshot, self._model.catalogue
        if request.similar_to is not None:
            self._item_row(request.similar_to)
        row, live = self._user(request.user_id)
        # The solves of a fold-in depend on the number of threads in their last bits.
        with threadpool_limits(1):
            try:
                made = pipeline.make_list(
                    ListModel(snapshot, catalogue, FilterMasks()), request, list_user(row, live), time.time()
                )
            except Invalid as error:
                raise UsageError(error.detail) from None
        answer = RankedList(request, snapshot, made, catalogue, live).answer("", None)
        return {**answer, "recommendation_id": None}

    def predict(self, user_id: str, item_id: str) -> Prediction:
        """Score one item for one user.

        Raises:
            UsageError: There is no such item.
            RunError: The model knows nothing of the user.
        """
        snapshot, item_row = self._model.snapshot, self._item_row(item_id)
        row, live = self._user(user_id)
        user = list_user(row, live)
        if user is None or not user.is_known:
            raise RunError(f"The model {snapshot.version} knows nothing of user {user_id!r}.")
        with threadpool_limits(1):
            scores = item_scores.of_user(snapshot, user)
            n_items = len(snapshot.items)
            ranking = retrieval.best(scores, Candidates(n_items), None, snapshot.popular_ranks, n_items)
            (score,) = scores.listed(np.array([item_row])).tolist()
        return Prediction(
            score,
            1 + int(np.flatnonzero(ranking.rows == item_row)[0]),
            len(snapshot.items),
            bool(np.isin(item_row, user.seen_rows(snapshot))),
        )

    def _item_row(self, item_id: str) -> int:
        items = self._model.snapshot.items
        row = items.row_of.get(item_id)
        if row is None:
            hint = did_you_mean(item_id, items.id_of) if len(items) < 100_000 else ""
            raise UsageError(f"The model {self._model.version} has no item {item_id!r}{hint}.")
        return row

    def _user(self, user_id: str | None) -> tuple[int | None, LiveUser | None]:
        """Return the user's row in the model and the user with live events, each None if there is none."""
        if user_id is None:
            return None, None
        pseudonym = self._model.pseudonyms.pseudonym(user_id)
        row = self._model.user_row(user_id, pseudonym)
        with threadpool_limits(1):
            return row, self._users.user(self._model.snapshot, pseudonym, row)
