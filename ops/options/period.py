"""A period of time that selects events by when they were received.

Invariant: a period is half open, so adjacent periods share no event; a date as its end includes that whole day. Times
are compared as text, which is correct because every `received_at` is UTC with milliseconds.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from service.errors import UsageError
from telemetry.ids import rfc3339_ms

_DATE_LENGTH: Final = len("2026-11-21")
_MIDNIGHT: Final = "T00:00:00.000Z"


@dataclass(frozen=True)
class Period:
    """The options `--from` and `--to`.

    Attributes:
        start: The first moment, RFC 3339 in UTC; None for no start.
        end: The first moment after it; None for no end.
    """

    start: str | None = None
    end: str | None = None

    @classmethod
    def parse(cls, start: str | None, end: str | None) -> "Period":
        """Parse two dates or RFC 3339 times; a date as the end is the last day.

        Raises:
            UsageError: One of them is neither, or the period is empty.
        """
        period = cls(
            None if start is None else moment("--from", start), None if end is None else moment("--to", end, days=1)
        )
        if period.start is not None and period.end is not None and period.start >= period.end:
            raise UsageError(f"Nothing lies between --from {start} and --to {end}.")
        return period

    def __bool__(self) -> bool:
        return self.start is not None or self.end is not None

    def __contains__(self, received_at: str) -> bool:
        return (self.start is None or self.start <= received_at) and (self.end is None or received_at < self.end)

    def overlaps(self, day: str) -> bool:
        """Whether a UTC date, as YYYY-MM-DD, has moments in it."""
        begins = f"{day}{_MIDNIGHT}"
        return (self.start is None or self.start[:_DATE_LENGTH] <= day) and (self.end is None or begins < self.end)


def moment(option: str, text: str, days: int = 0) -> str:
    """Parse a date or a time to RFC 3339 in UTC.

    Raises:
        UsageError: It is neither.
    """
    try:
        if len(text) == _DATE_LENGTH:
            day = date.fromisoformat(text) + timedelta(days)
            return f"{day.isoformat()}{_MIDNIGHT}"
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise UsageError(f"{option} {text} names no time zone; end it with Z or an offset such as +02:00.")
        return rfc3339_ms(at.astimezone(UTC).timestamp())
    except (ValueError, OverflowError):
        raise UsageError(f"{option} must be a date such as 2026-11-21, or an RFC 3339 time, not {text!r}.") from None
