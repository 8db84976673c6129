"""The oracle's memory: what the system owes, and what the archive holds of it; pure.

The invariant: something is owed exactly if a client was told so: an event by a 202, a list by an answer with a
recommendation_id. What is owed must be in the archive once, with the content that was sent.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

_SENT_FIELDS = ("type", "user_id", "item_id", "value", "client_time", "recommendation_id", "position")
_EXAMPLES = 5


@dataclass(frozen=True)
class Debt:
    """One thing that is owed: when it was acknowledged, and what it holds (None for a list)."""

    at_s: float
    content: tuple[Any, ...] | None


@dataclass
class Findings:
    """What is wrong with the archive, by the time of acknowledgement in seconds.

    Attributes:
        owed: How much was looked for.
        lost: Not there.
        doubled: There more than once.
        altered: There with another content.
        examples: Some of these in words.
    """

    owed: int = 0
    lost: list[float] = field(default_factory=list)
    doubled: list[float] = field(default_factory=list)
    altered: list[float] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether everything is there, once, as it was sent."""
        return not (self.lost or self.doubled or self.altered)

    def note(self, kind: list[float], debt: Debt, text: str) -> None:
        """Add one finding to one of the lists above."""
        kind.append(debt.at_s)
        if len(self.examples) < _EXAMPLES:
            self.examples.append(text)


def content_of(event: dict[str, Any], told_user: Callable[[str], str]) -> tuple[Any, ...]:
    """Return what of an event must come back unchanged.

    Args:
        event: As it is sent to /v1/events.
        told_user: The name by which telemetry knows a user.
    """
    sent = {**event, "user_id": told_user(event["user_id"]), "client_time": event.get("ts")}
    return tuple(sent.get(name) for name in _SENT_FIELDS)


class Ledger:
    """Everything owed since the drill began.

    Args:
        told_user: The name by which telemetry knows a user, where users are pseudonymised.
    """

    def __init__(self, told_user: Callable[[str], str] = str) -> None:
        self._told_user = told_user
        self._owed: dict[str, Debt] = {}

    def __len__(self) -> int:
        return len(self._owed)

    def some_ids(self, count: int) -> list[str]:
        """Return up to `count` ids of what is owed, evenly over the time."""
        ids = list(self._owed)
        return ids[:: max(1, len(ids) // count)][:count]

    def took(self, event_id: str, event: dict[str, Any], at_s: float) -> None:
        """Remember an event that was acknowledged; once more, by a retry, changes nothing."""
        self._owed.setdefault(event_id, Debt(at_s, content_of(event, self._told_user)))

    def served(self, recommendation_id: str, at_s: float) -> None:
        """Remember a list that was answered."""
        self._owed[recommendation_id] = Debt(at_s, None)

    def compare(self, lines: Iterable[bytes]) -> Findings:
        """Look for everything owed.

        Args:
            lines: The archive's, in any order.

        Raises:
            ValueError: A line is no JSON.
        """
        seen: Counter[str] = Counter()
        findings = Findings(owed=len(self._owed))
        for line in lines:
            record = orjson.loads(line)
            event_id = record.get("event_id" if record.get("class") == "feedback" else "recommendation_id")
            debt = self._owed.get(event_id)
            if debt is None or record.get("class") not in {"feedback", "served"}:
                continue
            seen[event_id] += 1
            if debt.content is not None and debt.content != tuple(record.get(name) for name in _SENT_FIELDS):
                findings.note(findings.altered, debt, f"{event_id} was sent as {debt.content}, archived as {record}")
        for event_id, debt in self._owed.items():
            count = seen[event_id]
            kind = "list" if debt.content is None else "event"
            if count == 0:
                findings.note(findings.lost, debt, f"{kind} {event_id} is not in the archive")
            elif count > 1:
                findings.note(findings.doubled, debt, f"{kind} {event_id} is in the archive {count} times")
        return findings
