"""Lists of new items: how well a model places items that it was not trained on.

A fifth of the items is held out with all interactions. A model is trained on the rest, the held-out items are written
to the catalogue as a replica takes them, and each user's held-out items that they like are looked for in a list of the
held-out items alone. The yardsticks are a random order, the popularity of the items' categories, and the categories in
the user's own history. In further rounds a share of those who like a new item is known, drawn at random; the lists are
judged by the others.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.catalogue.live_items import LiveItems
from service.catalogue.raters import Action, Raters, RaterState, key_of
from service.catalogue.served_model import ServedModel
from service.errors import RunError
from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.interactions import Interactions, no_progress
from telemetry.batch import EventPosition
from telemetry.events import ItemChange

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

_HELD_OUT_SHARE: Final = 0.2
_MIN_INTERACTIONS: Final = 5
_TOP: Final = 10
RATER_SHARES: Final = (0.0, 0.1, 0.3)


class Row(NamedTuple):
    """One line of the result; measures are means over users.

    Attributes:
        model: The algorithm or yardstick.
        known_raters: The share of those who like a new item that is known; None for a yardstick.
        ndcg: NDCG@10.
        hit_rate: The share of users with a hit in the first 10.
        auc: The area under the ROC curve.
    """

    model: str
    known_raters: float | None
    ndcg: float
    hit_rate: float
    auc: float


class HeldOut(NamedTuple):
    """The data without the new items, and what users like among them.

    Attributes:
        training: The other interactions.
        ids: The new items, by id.
        users: Int64 (m,), the users that are judged, as rows of the training data.
        likes: Bool (m, len(ids)).
    """

    training: Interactions
    ids: list[str]
    users: NDArray[np.int64]
    likes: Bool


def hold_out(data: Interactions, seed: int) -> HeldOut:
    """Hold out items at random among those with a few interactions.

    Raises:
        RunError: There are too few items, or no attributes.
    """
    counts = np.bincount(data.item_rows, minlength=len(data.items))
    known = [row for row, id_ in enumerate(data.items.id_of) if data.catalogue.attributes.get(id_)]
    candidates = np.array([row for row in known if counts[row] >= _MIN_INTERACTIONS], dtype=np.int64)
    n_new = int(candidates.size * _HELD_OUT_SHARE)
    if n_new < _TOP:
        raise RunError("The data has too few items with attributes and interactions.")
    is_new = np.zeros(len(data.items), dtype=bool)
    is_new[np.random.default_rng(seed).choice(candidates, n_new, replace=False)] = True
    kept = np.flatnonzero(~is_new)
    row_of = np.full(len(data.items), -1, dtype=np.int32)
    row_of[kept] = np.arange(kept.size, dtype=np.int32)
    rest = data.take(np.flatnonzero(~is_new[data.item_rows]))
    training = dataclasses.replace(
        rest, items=Vocabulary([data.items.id_of[row] for row in kept.tolist()]), item_rows=row_of[rest.item_rows]
    )
    ids = sorted(data.items.id_of[row] for row in np.flatnonzero(is_new).tolist())
    column_of = {id_: column for column, id_ in enumerate(ids)}
    liked = data.take(np.flatnonzero(is_new[data.item_rows] & _is_liked(data)))
    likes = np.zeros((len(data.users), n_new), dtype=bool)
    likes[liked.user_rows, [column_of[data.items.id_of[row]] for row in liked.item_rows.tolist()]] = True
    users = np.flatnonzero(likes.any(axis=1) & (np.bincount(training.user_rows, minlength=len(data.users)) > 0))
    return HeldOut(training, ids, users, likes[users])


def run(data: str, algorithms: list[str], seed: int, note: Callable[[str], None]) -> Iterator[Row]:
    """Yield the rows of the yardsticks and of each algorithm.

    Args:
        data: As for `recollect train`.
        algorithms: Names, each perhaps followed by `:key=value` settings.
        seed: Chooses the held-out items and the known raters.
        note: Called with the progress.
    """
    whole = datasets.read(data)
    held_out = hold_out(whole, seed)
    note(f"{len(held_out.ids)} new items, {held_out.users.size} users")
    rng = np.random.default_rng(seed)
    shape = held_out.likes.shape
    yield measure("random", None, rng.random(shape), held_out.likes)
    for name, scores in _yardsticks(held_out):
        yield measure(name, None, np.broadcast_to(scores, shape) + 1e-9 * rng.random(shape), held_out.likes)
    catalogue = whole.catalogue
    items = LiveItems()
    changes = [_change(id_, catalogue.titles.get(id_), catalogue.attributes.get(id_, {})) for id_ in held_out.ids]
    items.accept(changes, EventPosition("benchmark", 1, 1))
    for name in algorithms:
        note(name)
        algorithm, *settings = name.split(":")
        configured = ConfiguredAlgorithm.parse(algorithm, settings)
        fitted = configured.algorithm.fit(
            held_out.training, configured.config, np.random.default_rng(seed), no_progress
        )
        records = catalogue.records(held_out.training.items.id_of)
        model = dataclasses.replace(fitted, item_records=records)
        before: ServedModel | None = None
        for share in RATER_SHARES:
            is_known = held_out.likes & (np.random.default_rng(seed).random(shape) < share)
            before = ServedModel(model, items, before, RaterState(_raters(held_out, is_known), {}))
            scores = _scores(before.snapshot, held_out, len(model.items))
            scores[is_known] = -np.inf
            yield measure(name, share, scores, held_out.likes & ~is_known)


def measure(model: str, known_raters: float | None, scores: Float64, likes: Bool) -> Row:
    """Judge scores, float64 (m, n), by what users like, bool (m, n); users who like nothing are left out."""
    judged = likes.any(axis=1)
    scores, likes = scores[judged], likes[judged]
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(likes, order, axis=1)
    n_liked = likes.sum(axis=1)
    discounts = 1 / np.log2(np.arange(2, _TOP + 2))
    ideal = np.cumsum(discounts)[np.minimum(n_liked, _TOP) - 1]
    ndcg = (hits[:, :_TOP] * discounts).sum(axis=1) / ideal
    # The share of pairs of a liked item and another one in the right order.
    places = (hits * np.arange(hits.shape[1])).sum(axis=1) - n_liked * (n_liked - 1) / 2
    auc = 1 - places / np.maximum(n_liked * (hits.shape[1] - n_liked), 1)
    return Row(model, known_raters, float(ndcg.mean()), float(hits[:, :_TOP].any(axis=1).mean()), float(auc.mean()))


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the rows as plain JSON values."""
    return [row._asdict() for row in rows]


def _is_liked(data: Interactions) -> Bool:
    """Whether an interaction is one with a liked item: a rating from three quarters of the scale on, or unrated."""
    low, high = data.rating_min, data.rating_max
    return np.ones(len(data), dtype=bool) if low == high else data.ratings >= low + 0.75 * (high - low)


def _scores(snapshot: ModelSnapshot, held_out: HeldOut, n_model: int) -> Float64:
    rows = np.arange(n_model, len(snapshot.items))
    return np.array([scoring.exact_scores(snapshot, int(user), rows) for user in held_out.users])


def _raters(held_out: HeldOut, is_known: Bool) -> Raters:
    keys = [key_of(held_out.training.users.id_of[row]) for row in held_out.users.tolist()]
    liked = Action(0, "purchase", None)
    return {
        id_: {keys[row]: liked for row in np.flatnonzero(is_known[:, column]).tolist()}
        for column, id_ in enumerate(held_out.ids)
    }


def _yardsticks(held_out: HeldOut) -> Iterator[tuple[str, Float64]]:
    """Yield the scores of new items by their categories, over all users and in each user's history."""
    training = held_out.training
    names = sorted({name for id_ in (*training.items.id_of, *held_out.ids) for name in _categories(training, id_)})
    code_of = {name: code for code, name in enumerate(names)}
    known = _membership(training, training.items.id_of, code_of)
    new = _membership(training, held_out.ids, code_of)
    counts = np.bincount(training.item_rows, minlength=len(training.items)).astype(np.float64)
    popularity = (known.T @ counts) / np.maximum(known.sum(axis=0), 1e-12)
    yield "popularity of categories", np.asarray(new @ popularity)[np.newaxis]
    ones = np.ones(len(training))
    seen = csr_array((ones, (training.user_rows, training.item_rows)), shape=(len(training.users), known.shape[0]))
    tastes = (seen[held_out.users] @ known).toarray()
    yield "categories of the user", np.asarray(tastes @ new.toarray().T)


def _categories(data: Interactions, item_id: str) -> list[str]:
    values = data.catalogue.attributes.get(item_id, {})
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    return [text for texts in lists for text in texts if isinstance(text, str)]


def _membership(data: Interactions, ids: list[str], code_of: dict[str, int]) -> csr_array:
    """Return the categories of items, rows that sum to 1 or 0: CSR (len(ids), n_categories)."""
    cells = [(row, code_of[name]) for row, id_ in enumerate(ids) for name in _categories(data, id_)]
    rows, codes = np.array(cells, dtype=np.int64).reshape(-1, 2).T
    values = 1 / np.bincount(rows, minlength=len(ids))[rows]
    return csr_array((values, (rows, codes)), shape=(len(ids), len(code_of)))


def _change(item_id: str, title: str | None, attributes: dict[str, Any]) -> ItemChange:
    return ItemChange(
        event_id="benchmark",
        tenant="default",
        client_time=None,
        received_at="2026-01-01T00:00:00.000Z",
        request_id="benchmark",
        kind="put",
        item_id=item_id,
        title=title,
        attributes=attributes,
    )
