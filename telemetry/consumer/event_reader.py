"""Reading one event, and what becomes of it when that fails.

Invariant: an event fails alone. A line that is no event fails at once, because trying again changes nothing; what
else goes wrong with an event is tried in three rounds; an event that killed three consumers is not touched
again. Then it is a dead letter.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from telemetry.errors import BadEventError
from telemetry.events import Record, decode

MAX_TRIES: Final = 3

EventPosition: TypeAlias = tuple[str, int, int]
Check: TypeAlias = Callable[[Record], None]
"""What an installation demands of an event beyond its form; what it raises is that event's failure."""


@dataclass(frozen=True, slots=True)
class Failure:
    """RemovalReason an event could not be read, how often that was tried, and whether that is enough."""

    reason: str
    tries: int
    final: bool


class EventReader:
    """Reads events, and remembers which of them failed.

    Args:
        check: Asked about each event that could be decoded.
    """

    def __init__(self, check: Check | None = None) -> None:
        self._check = check
        self._tries: dict[EventPosition, int] = {}
        self._fatal: set[EventPosition] = set()

    @property
    def failing(self) -> bool:
        """Whether some event has failed and will be tried again."""
        return bool(self._tries)

    def mark_fatal(self, places: Iterable[EventPosition]) -> None:
        """Touch these events no more.

        Args:
            places: What killed its consumers.
        """
        self._fatal.update(places)

    def read(self, line: bytes, place: EventPosition) -> Record | Failure:
        """Try an event.

        Args:
            line: Its line.
            place: The producer, epoch and number that it must have.

        Returns:
            The event, or its failure.
        """
        if self._fatal and place in self._fatal:
            return Failure("each of the consumers that handled it died", MAX_TRIES, final=True)
        try:
            record = decode(line)
            if record[1:] != place:
                return Failure(
                    f"the line says that it is event {record.epoch}-{record.seq} of {record.producer}", 1, final=True
                )
            if self._check is not None:
                self._check(record)
        except BadEventError as error:
            return Failure(str(error), 1, final=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this event and no other
            tries = self._tries.pop(place, 0) + 1
            if tries < MAX_TRIES:
                self._tries[place] = tries
            return Failure(f"{type(error).__name__}: {error}", tries, final=tries == MAX_TRIES)
        if self._tries:
            self._tries.pop(place, None)
        return record

    def probe(self, line: bytes, place: EventPosition) -> None:
        """Handle an event as `read` does, for the sake of surviving it; its failure is for `read` to find.

        Args:
            line: Its line.
            place: Where it belongs.
        """
        if place in self._fatal:
            return
        with suppress(Exception):
            record = decode(line)
            if self._check is not None:
                self._check(record)
