"""The lists of a shard's users.

Invariant: a list is that of `GET /v1/recommendations/{user_id}` for the same model, live state, items and time. But
every item is scored, also where the model has an item index, and no list explores.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from service.generation.lists.block_lists import BlockUsers, best_items
from service.generation.lists.list_model import BulkModel
from service.generation.lists.shard_users import ShardUsers
from service.lists import item_scores, retrieval
from service.lists.boosts import BoostFactors
from service.lists.item_scores import ListUser
from service.lists.pipeline import shown_factors
from service.live.merged_history import merged_history
from service.models.fold_in.representation import UserRepresentation
from service.models.neighbourhood import Scores
from service.models.networks.network import Ranker
from service.models.ranking import personal_lists
from service.models.ranking.reranking import rerank
from service.models.ranking.scoring import Ranking, Rows, TopNRequest
from service.models.snapshot import Float32, ModelSnapshot
from telemetry.live.live_event import LiveEvent

NO_ITEM: Final = -1


class ShardLists(NamedTuple):
    """The lists of b users, best first.

    Attributes:
        rows: Int32 (b, n), item rows; `NO_ITEM` (-1) at the end of a shorter list.
        scores: Float64 (b, n); NaN at the end of a shorter list.
        counts: Int64 (b,), the length of each list.
        is_personal: Bool (b, n), whether the user's history placed the item, and not popularity.
    """

    rows: NDArray[np.int32]
    scores: NDArray[np.float64]
    counts: NDArray[np.int64]
    is_personal: NDArray[np.bool_]

    @classmethod
    def empty(cls, n_users: int, n: int) -> "ShardLists":
        """Return lists without items."""
        return cls(
            np.full((n_users, n), NO_ITEM, np.int32),
            np.full((n_users, n), np.nan),
            np.zeros(n_users, np.int64),
            np.zeros((n_users, n), np.bool_),
        )

    def put(self, place: int, ranking: Ranking) -> None:
        """Set the list of a user."""
        n = ranking.rows.size
        self.rows[place, :n], self.scores[place, :n], self.counts[place] = ranking.rows, ranking.scores, n
        self.is_personal[place, :n] = True if ranking.is_personal is None else ranking.is_personal

    def part(self, users: slice) -> "ShardLists":
        """Return the lists of some users."""
        return ShardLists(self.rows[users], self.scores[users], self.counts[users], self.is_personal[users])


def shard_lists(model: BulkModel, users: ShardUsers) -> ShardLists:
    """Make the lists of a shard."""
    snapshot = users.model(model)
    # The solves of a fold-in depend on the number of threads in their last bits.
    with threadpool_limits(1):
        changed = {
            place: list_user(snapshot, int(users.rows[place]), events, model) for place, events in users.live.items()
        }
    changed |= {place: None for place in np.flatnonzero(users.rows < 0).tolist() if place not in changed}
    lists = ShardLists.empty(len(users.ids), model.n)
    if snapshot.neighbourhood is None:
        alone = _by_blocks(model, snapshot, users.rows, changed, lists)
    else:
        alone = range(len(users.ids))
    with threadpool_limits(1):
        for place in alone:
            user = changed[place] if place in changed else ListUser(int(users.rows[place]))
            lists.put(place, _list_alone(model, snapshot, user))
    return lists


def list_user(snapshot: ModelSnapshot, row: int, events: Sequence[LiveEvent], model: BulkModel) -> ListUser | None:
    """Return a user with live events as `service.live.live_users` does; None if neither events nor model count.

    Args:
        row: The user in the model; -1 if it does not know the user.
    """
    known = None if row < 0 else row
    merged = merged_history(snapshot, known, events, model.seen_types)
    if merged.is_as_trained:
        return None if known is None else ListUser(known)
    return ListUser.from_history(known, merged.folded(snapshot, known), merged.seen, merged.history, merged.shown)


def _by_blocks(
    model: BulkModel,
    snapshot: ModelSnapshot,
    rows: NDArray[np.int64],
    changed: Mapping[int, ListUser | None],
    lists: ShardLists,
) -> Sequence[int]:
    """Make the lists of users whom the model knows from matrix products; returns the places of the others."""
    represented: dict[int, UserRepresentation] = {}
    alone: list[int] = []
    for place, user in changed.items():
        if user is None or not user.is_known or shown_factors(model.request, user):
            alone.append(place)
        elif user.representation is not None:
            represented[place] = user.representation
        elif user.row is not None:
            trained = snapshot.trained_user(user.row)
            represented[place] = trained._replace(seen=np.unique(user.seen_rows(snapshot)).astype(np.int32))
    is_alone = np.zeros(rows.size, bool)
    is_alone[alone] = True
    places = np.flatnonzero(~is_alone)
    if not places.size:
        return alone
    block = BlockUsers.trained(snapshot)
    if (rows[places] < 0).any():
        # Until the representation of a user whom the model does not know replaces it.
        block = block.with_stand_in()
    # The last row for -1.
    block = block.take(rows[places] % max(1, block.n_users))
    numbers = dict(zip(places.tolist(), range(places.size), strict=True))
    block = block.replaced(snapshot, {numbers[place]: user for place, user in represented.items()})
    found = best_items(model.items, block, model.n_retrieved)
    has_factors: NDArray[np.bool_] = np.asarray(block.factors.any(axis=1))
    listed = np.where(found.columns >= 0, model.items.rows.take(found.columns, mode="clip"), NO_ITEM)
    ranker = snapshot.ranker
    if ranker is None:
        width = found.columns.shape[1]
        lists.rows[places, :width], lists.scores[places, :width] = listed, found.scores
        lists.counts[places] = found.counts
        lists.is_personal[places, :width] = has_factors[:, np.newaxis]
        return alone
    with threadpool_limits(1):
        for number, place in enumerate(places.tolist()):
            retrieved = listed[number, : found.counts[number]].astype(np.int64)
            ranking = _reranked(snapshot, ranker, block.factors[number], retrieved)
            flags = None if has_factors[number] else np.zeros(model.n, bool)[: ranking.rows.size]
            lists.put(place, Ranking(ranking.rows[: model.n], ranking.scores[: model.n], flags))
    return alone


def _reranked(snapshot: ModelSnapshot, ranker: Ranker, factors: Float32, retrieved: Rows) -> Ranking:
    """Order the best items of a user by the ranker of the model."""

    def scores(rows: Rows) -> Scores:
        return ranker.scores(factors, snapshot.item_factors.take(rows, axis=0))

    return Ranking(*rerank(retrieved, scores, snapshot.popular_ranks, ranker.n_candidates))


def _list_alone(model: BulkModel, snapshot: ModelSnapshot, user: ListUser | None) -> Ranking:
    """Make one list by the stages of `service.lists.pipeline`."""
    if user is None or not user.is_known:
        seen = model.hidden[:0] if user is None else user.seen_rows(snapshot)
        of_all = item_scores.of_popularity(snapshot)
        ranking = retrieval.best(of_all, model.candidates(seen), None, snapshot.popular_ranks, model.n)
        return ranking._replace(is_personal=np.zeros(ranking.rows.size, bool))
    shown = shown_factors(model.request, user)
    if model.filter is None and not shown:
        exclude = np.concatenate([model.hidden, user.seen_since]) if user.seen_since.size else model.hidden
        request = TopNRequest(user.row or 0, model.n, exclude=exclude, user=user.representation)
        return personal_lists.personal(snapshot, [request])[0]
    of_user = item_scores.of_user(snapshot, user)
    boosts = BoostFactors(len(snapshot.items), [], shown) if shown else None
    candidates = model.candidates(user.seen_rows(snapshot))
    ranking = retrieval.best(of_user, candidates, boosts, snapshot.popular_ranks, model.n)
    return ranking._replace(is_personal=of_user.is_personal(ranking.rows))
