"""An event's line in outline: what an account needs of it.

Invariant: a line that is parsed was whole, JSON from its first byte to its last; what stands in it beside the outline
is not looked at. Pure.
"""

from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import orjson

_TEXTS = (str,) * 5
_PLAIN = frozenset({str, float, int, type(None)})


class Gap(NamedTuple):
    """What a gap record tells: so many events of a class (None for accepted ones) that will never come, and why."""

    of_class: str | None
    reason: str
    events: int


Said: TypeAlias = tuple[str | float | None, ...]
"""Which user reported what, as it stands in a line of feedback."""
Id: TypeAlias = tuple[str, str, str, Said | None]
"""A class or `list`, the tenant, the id, and what it stands for."""
_SAID = itemgetter("user_id", "type", "item_id", "value", "recommendation_id", "position", "client_time")


class Line(NamedTuple):
    """What the account needs of an event's line."""

    of_class: str
    tenant: str
    event_id: str
    list_id: str | None
    received_at: str
    producer: str
    epoch: int
    seq: int
    gap: Gap | None
    said: Said | None = None

    @property
    def ids(self) -> tuple[Id, ...]:
        """What no other line may have; feedback may share its id with an event of another user or content."""
        event = (self.of_class, self.tenant, self.event_id, self.said)
        # A served event goes by its list's id, unless somebody changes that.
        if self.list_id is None or self.list_id == self.event_id:
            return (event,)
        return event, ("list", self.tenant, self.list_id, None)


def parse(line: bytes) -> Line:
    """Read what the account needs.

    Args:
        line: An event's line, which has to be JSON from its first byte to its last.

    Returns:
        What it says.

    Raises:
        ValueError: It is not an event's line.
    """
    try:
        fields = orjson.loads(line)
        of_class = fields["class"]
        told = Line(
            of_class,
            fields["tenant"],
            fields["event_id"],
            str(fields["recommendation_id"]) if of_class == "served" else None,
            fields["received_at"],
            fields["producer"],
            fields["epoch"],
            fields["seq"],
            _gap(fields) if of_class == "system" else None,
            _said(fields) if of_class == "feedback" else None,
        )
    except (TypeError, KeyError) as error:
        raise ValueError(f"it is not an event: {error!r}") from None
    # All texts but the gap's, in the order of the fields; a loop would cost as much as the rest of this.
    texts = (type(told[0]), type(told[1]), type(told[2]), type(told[4]), type(told[5]))
    if texts != _TEXTS or type(told.epoch) is not int or type(told.seq) is not int or told.seq < 1:
        raise ValueError("it does not say whose event it is")
    return told


def _said(fields: dict[str, Any]) -> Said:
    said: Said = _SAID(fields)
    # What is none of these could not be told from another.
    return said if all(type(one) in _PLAIN for one in said) else ()


def _gap(fields: dict[str, Any]) -> Gap | None:
    if fields["kind"] != "gap" or type(fields["count"]) is not int:
        return None
    return Gap(fields["of_class"], str(fields["reason"]), fields["count"])
