"""Lists from the files of an installation, as a replica would answer them: no server has to run.

The active model, the state snapshot and the events that were archived since are read once. The lists are made by the
functions of the replica, from the same live state and the same item catalogue, and are recorded nowhere.
"""

import asyncio
import time
from typing import Final, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from service.api import wire
from service.config import Config
from service.errors import Invalid, ModelMissing, RunError, UsageError, did_you_mean
from service.lists import item_scores, pipeline, retrieval
from service.lists.candidates import Candidates
from service.lists.filters.masks import FilterMasks
from service.lists.list_request import ListRequest
from service.lists.pipeline import ListModel
from service.live.live_state import LiveState
from service.live.live_users import LiveUser, LiveUsers, list_user
from service.models import active_model, artefact
from service.models.item_record import ItemRecord
from service.models.snapshot import ModelSnapshot
from service.serving.catalogue_keeper import CatalogueKeeper
from service.serving.ranked_list import RankedList
from service.serving.store import ModelStore
from telemetry.errors import ArchiveError, StateError
from telemetry.events import ItemChange
from telemetry.ids import rfc3339_ms
from telemetry.live.archive_tail import read_tail
from telemetry.live.live_event import live_event
from telemetry.live.live_feed_reader import FeedBatch
from telemetry.live.state_snapshot import StateSnapshot

_DATE_LENGTH: Final = len("2026-11-21")
_MS_PER_S: Final = 1000


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
        version = active_model.version(config.models_dir, "ranking")
        if version is None:
            raise ModelMissing(
                f"No model is active in {config.models_dir}; make one with: recollect train --data PATH."
            )
        self._pseudonyms = config.pseudonymiser()
        self._store = ModelStore(artefact.load(config.models_dir / version))
        state = LiveState(most_pending=0, most_events=config.live.events_per_user)
        self._users = LiveUsers(state, config.live_lists.seen)
        try:
            batch = _stored_state(config)
        except (StateError, ArchiveError, OSError) as error:
            raise RunError(f"The live state cannot be read: {error}") from error
        if batch.snapshot is not None:
            state.load(batch.snapshot)
        state.apply(batch.position, batch.events)
        asyncio.run(self._follow(batch))

    @property
    def snapshot(self) -> ModelSnapshot:
        """The active model, with rows for the items that it was not trained on."""
        return self._store.current()

    def record(self, item_id: str) -> ItemRecord:
        """Return what is known of an item.

        Raises:
            UsageError: There is no such item.
        """
        return self._store.catalogue.record(self._item_row(item_id))

    def answer(self, request: ListRequest) -> wire.Recommendations:
        """Make a list; its `recommendation_id` is None, because it is not recorded as served.

        Raises:
            UsageError: The filter is wrong, or there is no item that the list is to be like.
        """
        snapshot, catalogue = self._store.current(), self._store.catalogue
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
        snapshot, item_row = self._store.current(), self._item_row(item_id)
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
        items = self._store.current().items
        row = items.row_of.get(item_id)
        if row is None:
            hint = did_you_mean(item_id, items.id_of) if len(items) < 100_000 else ""
            raise UsageError(f"The model {self._store.version} has no item {item_id!r}{hint}.")
        return row

    def _user(self, user_id: str | None) -> tuple[int | None, LiveUser | None]:
        """Return the user's row in the model and the user with live events, each None if there is none."""
        pseudonym = self._pseudonyms.pseudonym(user_id)
        if user_id is None or pseudonym is None:
            return None, None
        snapshot = self._store.current()
        # A model that was trained on archived events holds pseudonyms.
        row = snapshot.users.row_of.get(user_id, snapshot.users.row_of.get(pseudonym))
        with threadpool_limits(1):
            return row, self._users.user(snapshot, pseudonym, row)

    async def _follow(self, batch: FeedBatch) -> None:
        keeper = CatalogueKeeper(self._store, self._pseudonyms)
        await keeper.follow(batch)
        await keeper.build()


def _stored_state(config: Config) -> FeedBatch:
    """Read the state snapshot and what was archived since; nothing if no consumer has written a snapshot yet."""
    snapshot = StateSnapshot.open(config.state_dir)
    batch = FeedBatch(snapshot, marks=dict(snapshot.marks), position=snapshot.position)
    if snapshot.stamp is None:
        return batch
    since_day = rfc3339_ms(snapshot.since_ms / _MS_PER_S)[:_DATE_LENGTH]
    for record in read_tail(config.archive_dir, snapshot.manifest, since_day):
        event = live_event(record, snapshot.manifest.types)
        if event is not None:
            batch.events.append(event)
        elif isinstance(record.event, ItemChange):
            batch.item_changes.append(record)
    return batch
