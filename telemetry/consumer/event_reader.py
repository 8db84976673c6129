"""Reads one event, and decides what happens when that fails.

Invariant: an event fails alone. A line that is no event fails at once, because another try changes nothing; any other
failure of an event is tried in three rounds; an event that killed three consumers is not read again. Then it is a dead
letter.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from telemetry.batch import EventPosition
from telemetry.errors import BadEventError
from telemetry.events import Record, decode

MAX_TRIES: Final = 3

EventCheck: TypeAlias = Callable[[Record], None]
"""A further check of a decoded event, by the installation; an error that it raises is the event's failure."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an event could not be read, how often that was tried, and whether no further try follows."""

    reason: str
    tries: int
    final: bool


class EventReader:
    """Reads events, and counts the failed tries of each."""

    def __init__(self, check: EventCheck | None = None) -> None:
        self._check = check
        self._tries: dict[EventPosition, int] = {}
        self._fatal: set[EventPosition] = set()

    @property
    def failing(self) -> bool:
        """Whether some event has failed and will be tried again."""
        return bool(self._tries)

    def mark_fatal(self, positions: Iterable[EventPosition]) -> None:
        """Never read these events again: they killed their consumers."""
        self._fatal.update(positions)

    def read(self, line: bytes, position: EventPosition) -> Record | Failure:
        """Try to read an event."""
        if self._fatal and position in self._fatal:
            return Failure("Each of the consumers that handled it died.", MAX_TRIES, final=True)
        try:
            record = decode(line)
            if (record.producer, record.epoch, record.seq) != position:
                return Failure(f"The line names event {record.epoch}-{record.seq} of {record.producer}.", 1, final=True)
            if self._check is not None:
                self._check(record)
        except BadEventError as error:
            return Failure(str(error), 1, final=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this event and no other
            tries = self._tries.pop(position, 0) + 1
            if tries < MAX_TRIES:
                self._tries[position] = tries
            return Failure(f"{type(error).__name__}: {error}", tries, final=tries == MAX_TRIES)
        if self._tries:
            self._tries.pop(position, None)
        return record

    def probe(self, line: bytes, position: EventPosition) -> None:
        """Handle an event as `read` does, only to see whether the process survives; failures are ignored."""
        if position in self._fatal:
            return
        with suppress(Exception):
            record = decode(line)
            if self._check is not None:
                self._check(record)
