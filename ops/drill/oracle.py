"""The oracle: a record of everything acknowledged, and its comparison with the archive; pure.

Invariant: a 202 acknowledges an event, and an answer with a recommendation_id acknowledges a list. The archive must
hold each acknowledged event and list once, with the content that was sent.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

_SENT_FIELDS = ("type", "user_id", "item_id", "value", "client_time", "recommendation_id", "position")
_MAX_EXAMPLES = 5


@dataclass(frozen=True)
class Acknowledgement:
    """One acknowledged event or list: when, and the event's content (None for a list)."""

    at_s: float
    content: tuple[Any, ...] | None


@dataclass
class Findings:
    """The differences between the archive and the acknowledgements, as times of acknowledgement in seconds.

    Attributes:
        expected: Number of acknowledged events and lists.
        lost: Those that are absent.
        duplicated: Those that occur more than once.
        altered: Those with other content.
        examples: Some of these, one sentence each.
    """

    expected: int = 0
    lost: list[float] = field(default_factory=list)
    duplicated: list[float] = field(default_factory=list)
    altered: list[float] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether the archive holds everything once, as it was sent."""
        return not (self.lost or self.duplicated or self.altered)

    def add(self, kind: list[float], acknowledged: Acknowledgement, example: str) -> None:
        """Add one finding to one of the lists above."""
        kind.append(acknowledged.at_s)
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(example)


class Oracle:
    """Everything acknowledged since the drill began.

    Args:
        pseudonym_of: Maps a user id to the one that telemetry holds.
    """

    def __init__(self, pseudonym_of: Callable[[str], str] = str) -> None:
        self._pseudonym_of = pseudonym_of
        self._acknowledged: dict[str, Acknowledgement] = {}

    def __len__(self) -> int:
        return len(self._acknowledged)

    def sample_ids(self, count: int) -> list[str]:
        """Return up to `count` ids, spread evenly over the time."""
        ids = list(self._acknowledged)
        return ids[:: max(1, len(ids) // count)][:count]

    def record_event(self, event_id: str, event: dict[str, Any], at_s: float) -> None:
        """Record an acknowledged event, as sent to /v1/events; the acknowledgement of a retry changes nothing."""
        sent = {**event, "user_id": self._pseudonym_of(event["user_id"]), "client_time": event.get("ts")}
        content = tuple(sent.get(name) for name in _SENT_FIELDS)
        self._acknowledged.setdefault(event_id, Acknowledgement(at_s, content))

    def record_list(self, recommendation_id: str, at_s: float) -> None:
        """Record an answered list."""
        self._acknowledged[recommendation_id] = Acknowledgement(at_s, None)

    def check(self, lines: Iterable[bytes]) -> Findings:
        """Look for everything acknowledged in the lines of an archive, which come in any order.

        Raises:
            ValueError: A line is not JSON.
        """
        counts: Counter[str] = Counter()
        findings = Findings(expected=len(self._acknowledged))
        for line in lines:
            record = orjson.loads(line)
            event_id = record.get("event_id" if record.get("class") == "feedback" else "recommendation_id")
            sent = self._acknowledged.get(event_id)
            if sent is None or record.get("class") not in {"feedback", "served"}:
                continue
            counts[event_id] += 1
            if sent.content is not None and sent.content != tuple(record.get(name) for name in _SENT_FIELDS):
                findings.add(findings.altered, sent, f"{event_id} was sent as {sent.content}, archived as {record}")
        for event_id, sent in self._acknowledged.items():
            count = counts[event_id]
            kind = "list" if sent.content is None else "event"
            if count == 0:
                findings.add(findings.lost, sent, f"{kind} {event_id} is not in the archive")
            elif count > 1:
                findings.add(findings.duplicated, sent, f"{kind} {event_id} is in the archive {count} times")
        return findings
