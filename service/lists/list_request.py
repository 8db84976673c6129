"""A list as a caller asks for it, in ids."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from service.lists.exploration import Exploration
from service.lists.sessions import SessionItem
from service.models.features.attribute_categories import GivenValue

ListLevel: TypeAlias = Literal["trained", "cluster", "popular"]
"""The degradation level of one list; `service.serving.ranking.list_level` says what each is."""


class Boost(NamedTuple):
    """A factor for the scores of the items that match a filter; above 1 they rise, below 1 they sink."""

    filter: str
    factor: float


class Pin(NamedTuple):
    """An item with a fixed place in the list, from 0."""

    item_id: str
    position: int


class CandidateSource(NamedTuple):
    """Where the candidates of a list come from that its own process has not found.

    Attributes:
        model: The version of the candidates service; None for popular items, because the service gave no answer.
        watermark: The item changes that its answer reflects.
    """

    model: str | None = None
    watermark: str = ""


class ListRequest(NamedTuple):
    """A list as a caller asks for it; `scoring.TopNRequest` is its counterpart in rows of a model.

    Attributes:
        n: How many items to return.
        user_id: The user; None for a list for no particular user.
        offset: How many of the best items to skip.
        exclude: Items never to return.
        fields: What the answer shows of each item besides its place; the list does not depend on it.
        deadline_ms: Within which time the answer is needed; it decides about `level` alone.
        include: The only candidates; None for the whole catalogue.
        similar_to: The item whose nearest items are asked for, or None.
        seeds: Items whose nearest items are asked for.
        session: What the visitor has just done, the latest last.
        user_features: Attributes of the user by name, which replace those that the model knows; None for none.
        window: Popular within which time, such as `7d`; None for all time.
        page_token: The token of the page before; None for the first page.
        filter: What the items' attributes must be; None for any.
        boosts: Factors of scores, all of which apply.
        pins: Items with a fixed place, which need not match the filter and may have been seen.
        impression_factor: What a score is multiplied by for each time that the item was shown in vain; None for 1.
        explain: How many items of the history to name for each item; the list does not depend on it.
        diversity: How much the list avoids similar items, 0 to 1.
        exploration: How the list samples its tail; None for the best items. The server decides, not the caller.
        candidates: Where the candidates come from; None for the process itself. The server decides, not the caller.
        level: The level of `service.serving.ranking.list_level` that the deadline left; None for the full service.
    """

    n: int
    user_id: str | None = None
    offset: int = 0
    exclude: Sequence[str] = ()
    fields: Sequence[str] = ()
    deadline_ms: int | None = None
    include: Sequence[str] | None = None
    similar_to: str | None = None
    seeds: Sequence[str] = ()
    session: Sequence[SessionItem] = ()
    user_features: Mapping[str, GivenValue] | None = None
    window: str | None = None
    page_token: str | None = None
    filter: str | None = None
    boosts: Sequence[Boost] = ()
    pins: Sequence[Pin] = ()
    impression_factor: float | None = None
    explain: int = 0
    diversity: float = 0.0
    exploration: Exploration | None = None
    candidates: CandidateSource | None = None
    level: ListLevel | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the list is the best items of a user, or of all, less exclusions, in the order of their scores.

        At a reduced level these are the scores of that level.
        """
        return self[_N_PLAIN:-1] == _DEFAULTS

    @property
    def degraded(self) -> Literal[ListLevel, "popular_candidates"] | None:
        """The degradation level of the list by itself; None in full service."""
        if self.candidates is not None and self.candidates.model is None:
            return "popular_candidates"
        return self.level

    @property
    def kind(self) -> str:
        """Whose list it is, as a text: pages of one list have the same."""
        if self.similar_to is not None:
            return f"similar:{self.similar_to}"
        if self.seeds:
            return f"seeds:{_digest(self.seeds)}:{self.user_id or ''}"
        if self.window is not None:
            return f"popular:{self.window}"
        return "popular" if self.user_id is None else f"user:{self.user_id}"

    @property
    def candidate_set(self) -> str:
        """The candidates by name; ids are given by count and CRC-32, a filter by its CRC-32."""
        if self[_N_USUAL:] == _USUAL:
            return "catalogue"
        if self.similar_to is not None:
            return f"similar:{self.similar_to}"
        if self.seeds:
            return f"seeds:{_digest(self.seeds)}"
        if self.window is not None:
            return f"window:{self.window}"
        name = "catalogue" if self.include is None else f"include:{_digest(self.include)}"
        if self.filter is not None:
            name += f";filter:{zlib.crc32(self.filter.encode()):08x}"
        return f"{name};exclude:{_digest(self.exclude)}" if self.exclude else name

    @property
    def as_fields(self) -> dict[str, Any]:
        """What the list depends on as plain JSON, without the user and without what was not asked for."""
        if self[_N_USUAL:] == _USUAL:
            return {"n": self.n}
        values = zip(self._fields, self, ListRequest(0), strict=True)
        return {name: _plain(value) for name, value, default in values if name in _NAMES and value != default}

    @classmethod
    def from_fields(cls, fields: dict[str, Any], user_id: str | None) -> "ListRequest":
        """Undo `as_fields`; fields of a later version are ignored."""
        known: dict[str, Any] = {name: fields[name] for name in _NAMES if name in fields}
        known |= {name: tuple(known[name]) for name in ("exclude", "include", "seeds") if known.get(name) is not None}
        known["boosts"] = tuple(Boost(**boost) for boost in known.get("boosts", ()))
        known["pins"] = tuple(Pin(**pin) for pin in known.get("pins", ()))
        if known.get("exploration") is not None:
            known["exploration"] = Exploration(**known["exploration"])
        if known.get("candidates") is not None:
            known["candidates"] = CandidateSource(**known["candidates"])
        known["session"] = tuple(SessionItem(**item) for item in known.get("session", ()))
        return cls(user_id=user_id, **known)


# What a list does not depend on, and its user.
_NO_MATTER: Final = {"user_id", "fields", "deadline_ms", "explain"}
_NAMES: Final = tuple(name for name in ListRequest._fields if name not in _NO_MATTER)
_N_PLAIN: Final = ListRequest._fields.index("deadline_ms") + 1
_DEFAULTS: Final = ListRequest(1)[_N_PLAIN:-1]
# Most requests name a user and a length alone.
_N_USUAL: Final = ListRequest._fields.index("offset")
_USUAL: Final = ListRequest(1)[_N_USUAL:]


def _plain(value: Any) -> Any:
    if isinstance(value, Boost | Pin | SessionItem | CandidateSource):
        return value._asdict()
    if isinstance(value, Exploration):
        return asdict(value)
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _digest(ids: Sequence[str]) -> str:
    return f"{len(ids)}:{zlib.crc32(chr(0).join(ids).encode()):08x}"
