"""A served list made again, by the functions that made it (pure, but for loading models).

Invariant: a list is rebuilt from its event, the model that it names, and the archived events up to its watermarks. What
is not recorded, such as the number of events that a state keeps, is taken from the settings.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple

from service.candidates.query import find, popular_rows, query_of
from service.catalogue.catalogue import Catalogue
from service.catalogue.live_items import LiveItems
from service.catalogue.raters import RaterIndex, RaterState, action_of, key_of, parse_raters
from service.catalogue.served_model import ServedModel, record_of
from service.errors import Invalid, ModelError
from service.lists.filters.masks import FilterMasks
from service.lists.item_scores import ListUser
from service.lists.list_request import ListRequest
from service.lists.pipeline import ListModel, MadeList, make_list, rows_of
from service.live.merged_history import MergedHistory, merged_history
from service.models.index.library import MISSING
from service.models.ranking.scoring import Rows
from service.models.snapshot import ModelSnapshot
from service.replay.evidence import Evidence
from telemetry.batch import Position
from telemetry.errors import BadEventError
from telemetry.events import Served
from telemetry.live.live_event import LiveEvent, last_events
from telemetry.live.state_watermark import applied_events, marks_text, parse_watermark
from telemetry.pseudonym import Pseudonymiser

_KEPT_MODELS: Final = 4
# In place of a raters watermark: all actions.
_EVERYTHING: Final = "*"
# The part of a catalogue watermark that names the raters.
_RATERS_PART: Final = 2


class ListedItem(NamedTuple):
    """One place of a list."""

    item_id: str
    position: int
    score: float
    source: str
    propensity: float


class Rebuilt(NamedTuple):
    """A list that was made again.

    Attributes:
        items: Its items.
        problem: Why it could not be made, as a sentence; empty if it was.
    """

    items: list[ListedItem]
    problem: str = ""


class _ServedState(NamedTuple):
    snapshot: ModelSnapshot
    catalogue: Catalogue
    problem: str = ""


def _without_index(model: ModelSnapshot) -> str:
    """Return why lists of a model differ from served ones that an item index chose; an empty text if they do not."""
    described = model.manifest.get("index")
    if described is None or described["kind"] == "exact" or model.item_index is not None:
        return ""
    return f"Its model has an item index, which cannot be used here. {MISSING}"


class Rebuilder:
    """Makes lists again.

    Args:
        load: Returns a published version; raises ModelError.
        evidence: The archived events.
        pseudonyms: Maps user ids of models to those of telemetry.
        events_per_user: How many live events of a user the state keeps.
        seen_types: The types of live events whose items are left out of lists.
    """

    def __init__(
        self,
        load: Callable[[str], ModelSnapshot],
        evidence: Evidence,
        pseudonyms: Pseudonymiser,
        *,
        events_per_user: int,
        seen_types: frozenset[str],
    ) -> None:
        self._evidence = evidence
        self._pseudonyms = pseudonyms
        self._events_per_user = events_per_user
        self._seen_types = seen_types
        self._load = lru_cache(maxsize=_KEPT_MODELS)(load)
        self._served = lru_cache(maxsize=_KEPT_MODELS)(self._served_model)
        self._row_of = lru_cache(maxsize=_KEPT_MODELS)(self._row_of_pseudonym)

    def as_served(self, event: Served) -> Rebuilt:
        """Make a list as it was served."""
        if event.request is None:
            return Rebuilt([], "Its event is of an older release, which did not record what was asked for.")
        live: list[LiveEvent] = []
        if event.user_id is not None and event.state_watermark:
            try:
                watermark = parse_watermark(event.state_watermark)
            except BadEventError as error:
                return Rebuilt([], str(error))
            live = applied_events(self._evidence.live.get(event.user_id, ()), watermark, self._events_per_user)
        return self._rebuilt(event, event.model, live, event.catalogue_watermark or "", event.events_applied)

    def as_of_now(self, event: Served, version: str) -> Rebuilt:
        """Make the list of the same request by another model, with everything that the archive has of the user."""
        if event.request is None:
            return Rebuilt([], "Its event is of an older release, which did not record what was asked for.")
        live = [] if event.user_id is None else self._evidence.live.get(event.user_id, [])
        marks: dict[str, Position] = {}
        for record in self._evidence.items:
            position = Position(record.epoch, record.seq)
            marks[record.producer] = max(position, marks.get(record.producer, position))
        watermark = f"{marks_text(marks)};{marks_text(marks)};{_EVERYTHING}"
        return self._rebuilt(event, version, last_events(live, self._events_per_user), watermark, None)

    def _rebuilt(
        self, event: Served, version: str, live: Sequence[LiveEvent], items_watermark: str, n_live: int | None
    ) -> Rebuilt:
        if "window" in (event.request or {}):
            return Rebuilt([], "It counts what all users did up to its moment, which its event does not record.")
        try:
            served = self._served(version, items_watermark)
        except ModelError as error:
            return Rebuilt([], str(error))
        if served.problem:
            return Rebuilt([], served.problem)
        snapshot = served.snapshot
        row = None if event.user_id is None else self._row_of(version).get(event.user_id)
        merged = merged_history(snapshot, row, live, self._seen_types) if live else None
        if n_live is not None and n_live != (0 if merged is None else merged.n_live):
            found = 0 if merged is None else merged.n_live
            return Rebuilt([], f"It reflects {n_live} live events of the user, and the archive has {found} of them.")
        request = ListRequest.from_fields(event.request or {}, self._user_id(snapshot, row, event.user_id))
        user = _list_user(snapshot, request, row, merged)
        now_s = datetime.fromisoformat(event.received_at).timestamp()
        model = ListModel(snapshot, served.catalogue, FilterMasks())
        if n_live is None:
            # Another model finds its candidates by itself.
            request = request._replace(candidates=None)
        try:
            retrieved = self._retrieved(model, request, user, now_s)
            if isinstance(retrieved, str):
                return Rebuilt([], retrieved)
            made = make_list(model._replace(retrieved=retrieved), request, user, now_s, event.recommendation_id)
        except Invalid as error:
            return Rebuilt([], f"The request cannot be repeated: {error.detail}")
        return Rebuilt(_listed(snapshot, made))

    def _retrieved(
        self, model: ListModel, request: ListRequest, user: ListUser | None, now_s: float
    ) -> Rows | str | None:
        """Return the candidates that another service found for a list, found again; None for a list without.

        If they cannot be found, the reason as a sentence is returned.
        """
        source = request.candidates
        query = None if source is None else query_of(model, request, user, now_s)
        if source is None or query is None:
            return None
        if source.model is None:
            return popular_rows(model, query)
        try:
            served = self._served(source.model, source.watermark)
        except ModelError as error:
            return f"Its candidates cannot be found again: {error}"
        if served.problem:
            return served.problem
        ranking = find(ListModel(served.snapshot, served.catalogue, FilterMasks()), query)
        id_of = served.snapshot.items.id_of
        return rows_of(model.snapshot, [id_of[row] for row in ranking.rows.tolist()])

    def _served_model(self, version: str, items_watermark: str) -> _ServedState:
        """Return a model with its catalogue at the watermarks of a served event."""
        model = self._load(version)
        watermark, *more = items_watermark.split(";")
        built = more[0] if more else watermark
        raters, problem = RaterState({}, {}), _without_index(model)
        items = self._items_at(built)
        if rests_on_raters(items_watermark):
            raters = self._raters_at(more[1], model)
            new_ids = [change.item_id for change in items.changes() if change.item_id not in model.items.row_of]
            if more[1] != _EVERYTHING and raters.checksum(new_ids) != parse_raters(more[1])[1]:
                problem = "It rests on what users did with new items, and the archive no longer has all of that."
        served = ServedModel(model, items, None, raters, self._pseudonyms)
        if watermark == built:
            return _ServedState(served.snapshot, served.catalogue, problem)
        # Records were written since the columns and rows were built.
        row_of = served.snapshot.items.row_of
        records = {
            row_of[change.item_id]: record_of(change, model, row_of[change.item_id])
            for change in self._items_at(watermark).changes()
            if change.item_id in row_of
        }
        return _ServedState(served.snapshot, served.catalogue.with_records(records, watermark), problem)

    def _raters_at(self, text: str, model: ModelSnapshot) -> RaterState:
        """Return who did what with items that a model does not know, up to the marks of a served event."""
        marks = None if text == _EVERYTHING else parse_raters(text)[0]
        index = RaterIndex()
        for event in self._evidence.actions:
            producer, epoch, seq = event.position
            known = marks is None or Position(epoch, seq) <= marks.get(producer, Position(0, 0))
            if known and event.item_id not in model.items.row_of:
                index.add(event.item_id, key_of(event.user_id), action_of(event))
        return index.copy()

    def _items_at(self, watermark: str) -> LiveItems:
        marks = parse_watermark(watermark).marks
        items = LiveItems()
        items.apply(
            (
                record
                for record in self._evidence.items
                if Position(record.epoch, record.seq) <= marks.get(record.producer, Position(0, 0))
            ),
            marks,
        )
        return items

    def _row_of_pseudonym(self, version: str) -> dict[str, int]:
        """Return the rows of a model's users by their ids in telemetry."""
        row_of = self._load(version).users.row_of
        if not self._pseudonyms.active:
            return row_of
        # A model that was trained on the archive holds pseudonyms, and another one the callers' ids.
        return row_of | {self._pseudonyms.pseudonym(user_id): row for user_id, row in row_of.items()}

    @staticmethod
    def _user_id(snapshot: ModelSnapshot, row: int | None, telemetry_id: str | None) -> str | None:
        """Return the caller's id of a user, to which page tokens are bound; the one of telemetry if it is not known."""
        return telemetry_id if row is None else snapshot.users.id_of[row]


def rests_on_raters(catalogue_watermark: str | None) -> bool:
    """Whether a list rests on what users did with new items."""
    return catalogue_watermark is not None and catalogue_watermark.count(";") == _RATERS_PART


def as_recorded(event: Served) -> list[ListedItem]:
    """Return the items of a served list."""
    return [
        ListedItem(row["item_id"], row["position"], row["score"], row["source"], row["propensity"])
        for row in event.items.rows()
    ]


def _list_user(
    snapshot: ModelSnapshot, request: ListRequest, row: int | None, merged: MergedHistory | None
) -> ListUser | None:
    """Return the user of a list as a replica does (`service.serving.lists.served_lists`)."""
    if merged is None or merged.is_as_trained:
        return None if row is None else ListUser(row)
    folded = merged.folded(snapshot, row) if request.level is None else None
    return ListUser.from_history(row, folded, merged.seen, merged.history, merged.shown)


def _listed(snapshot: ModelSnapshot, made: MadeList) -> list[ListedItem]:
    id_of = snapshot.items.id_of
    propensities = [1.0] * len(made.rows) if made.propensities is None else made.propensities.tolist()
    columns = zip(made.rows, made.scores.round(6).tolist(), made.sources, propensities, strict=True)
    return [
        ListedItem(id_of[row], position, score, source, propensity)
        for position, (row, score, source, propensity) in enumerate(columns, made.page.place)
    ]
