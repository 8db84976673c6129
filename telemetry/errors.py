"""Every error that telemetry raises, and nothing else.

TelemetryError
├── BadEventError          an event cannot be written as, or read from, a line
├── BadBatchError          a stream entry is not a valid batch
├── SpoolError             a slot's directory cannot be used
│   └── SlotTakenError     another process holds the slot
├── EventsRefusedError     events cannot be accepted now; holds the pause before the next attempt
├── StreamError            the event stream cannot be used now; connect again
│   ├── StreamAwayError    no connection, or no answer in time: what was sent may or may not have arrived
│   ├── StreamRefusedError Redis answered with an error: what was sent was not applied
│   ├── GroupMissingError  Redis lost the consumer group with its stream
│   ├── RedisUnfitError    Redis refuses every command, as it or its address is configured
│   ├── UnmarkedRedisError the archive's mark is not in Redis (yet)
│   └── ForeignRedisError  another archive's mark is in Redis: no event may go there
├── KeyFileError           the file with the pseudonyms' key cannot be used
├── ArchiveError           the archive cannot be read or written now
│   ├── CatalogueBusyError another process holds a lock of the catalogue
│   └── LeaseLostError     another consumer holds the archive's lease
├── StateError             the snapshot of live state cannot be read or written
└── FailpointError         a failpoint fails on request, or a request names none
"""


class TelemetryError(Exception):
    """Base of everything that telemetry raises on purpose."""


class BadEventError(TelemetryError):
    """An event that cannot be written as a line, or a line that is not an event."""


class BadBatchError(TelemetryError):
    """A stream entry that is not a batch, or is damaged."""


class SpoolError(TelemetryError):
    """A slot's directory cannot be used."""


class SlotTakenError(SpoolError):
    """Another process holds the slot."""


class EventsRefusedError(TelemetryError):
    """Events cannot be accepted now: there is no room, or the disk refuses or is too slow.

    Args:
        message: One sentence.
        retry_after_s: The pause before the next attempt.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StreamError(TelemetryError):
    """The event stream cannot be used now; connect again before the next call."""


class StreamAwayError(StreamError):
    """No connection, or no answer in time: what was sent may or may not have arrived."""


class StreamRefusedError(StreamError):
    """Redis answered with an error: what was sent was not applied."""


class GroupMissingError(StreamError):
    """Redis lost the consumer group of a stream with the stream."""


class RedisUnfitError(StreamError):
    """Redis refuses every command until it or its address is configured otherwise.

    Args:
        reason: A clause about the Redis.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"Redis cannot be used as it is configured: {reason}.")
        self.reason = reason


class UnmarkedRedisError(StreamError):
    """The archive's mark is not in Redis, or not yet: its consumer writes it."""


class ForeignRedisError(StreamError):
    """Another archive owns the namespace in Redis: no event may go there, or be read there."""


class KeyFileError(TelemetryError):
    """The file with the pseudonyms' key cannot be read, is too short, or is open to other users."""


class ArchiveError(TelemetryError):
    """The archive cannot be read or written now."""


class CatalogueBusyError(ArchiveError):
    """Another process holds a lock of the archive's catalogue."""


class LeaseLostError(ArchiveError):
    """Another consumer holds the archive's lease."""


class StateError(TelemetryError):
    """The snapshot of live state is damaged, of another version, or not there."""


class FailpointError(TelemetryError):
    """A failpoint fails on request, or a request names no failpoint."""
