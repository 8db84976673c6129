"""The feed of live state: one capped stream, written by the consumer and followed by every replica.

Invariants of every `FeedStream`:

- The id of an entry is (generation, number). Numbers are dense from 1 in a generation, and later generations are
  larger. So a follower sees each missing entry, each new generation, and that the stream was emptied.
- Only the first entry of a generation may create the stream or follow another generation.
- After any `StreamError` the caller connects again.
"""

from typing import NamedTuple, Protocol

from telemetry.batch import Position


class FeedEnds(NamedTuple):
    """The state of the stream.

    Attributes:
        last: The last id that was ever used.
        first_kept: The id of the first entry that is there; None if there is none.
        length: How many entries are there.
    """

    last: Position
    first_kept: Position | None
    length: int


class FeedStream(Protocol):
    """Both ends of the feed; a process uses one object for one end. Every method may raise StreamError."""

    async def connect(self) -> None:
        """Drop any connection and make a new one."""

    async def close(self) -> None:
        """Drop the connection; never raises."""

    async def ends(self) -> FeedEnds | None:
        """Return the state of the stream; None if there is none."""

    async def append(self, position: Position, data: bytes, *, first_kept: int) -> bool:
        """Append an entry and remove those of its generation before number `first_kept`.

        Returns:
            Whether it was done. False: there is no stream, or it has gone further.
        """

    async def begin(self, generation: int, data: bytes) -> None:
        """Replace whatever the stream holds by the first entry of a generation."""

    async def read(self, after: Position, *, max_entries: int, block_ms: int) -> list[tuple[Position, bytes]]:
        """Return the entries behind a position, waiting for one up to `block_ms`."""
