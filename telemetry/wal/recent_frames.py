"""The newest frames of an epoch in memory: those not yet durable, and recent durable ones for the shipper.

Invariant: numbers are dense from `first_seq` to `next_seq - 1`; frames up to `durable_seq` are durable. A frame leaves
only once it is durable.
"""

from collections.abc import Sequence

from telemetry.wal.frame import line_of

# Durable frames kept, so that the shipper is spared the file.
RECENT_BYTES = 4 * 1024 * 1024


class RecentFrames:
    """Frames of one epoch from `next_seq` on; those before are durable elsewhere.

    Of the durable frames `keep_bytes` stay, and twice as much before the oldest are dropped.

    Attributes:
        first_seq: The number of the oldest frame here.
        durable_seq: The last durable number of the epoch; 0 if there is none.
        pending_bytes: The bytes of frames that are not durable.
        uncommitted_bytes: The bytes of those that no commit has begun to write.
    """

    __slots__ = (
        "_frames",
        "_keep_bytes",
        "_size_bytes",
        "durable_seq",
        "first_seq",
        "pending_bytes",
        "uncommitted_bytes",
    )

    def __init__(self, next_seq: int = 1, keep_bytes: int = RECENT_BYTES) -> None:
        self._frames: list[bytes] = []
        self._keep_bytes = keep_bytes
        self._size_bytes = 0
        self.first_seq = next_seq
        self.durable_seq = next_seq - 1
        self.pending_bytes = 0
        self.uncommitted_bytes = 0

    def append(self, frame: bytes) -> None:
        """Add the frame of the next number."""
        size_bytes = len(frame)
        self._frames.append(frame)
        self._size_bytes += size_bytes
        self.pending_bytes += size_bytes
        self.uncommitted_bytes += size_bytes

    def begin_commit(self) -> list[bytes]:
        """Return the frames that are not durable; from now on they count as being committed."""
        self.uncommitted_bytes = 0
        return self.pending()

    def pending(self) -> list[bytes]:
        """Return the frames that are not durable."""
        return self._frames[self.durable_seq + 1 - self.first_seq :]

    def mark_durable(self, count: int, size_bytes: int) -> None:
        """Note that the next `count` frames, of `size_bytes` together, are durable; drop old durable ones."""
        self.durable_seq += count
        self.pending_bytes -= size_bytes
        if self._size_bytes <= 2 * self._keep_bytes:
            return
        dropped = 0
        while self._size_bytes > self._keep_bytes and self.first_seq + dropped <= self.durable_seq:
            self._size_bytes -= len(self._frames[dropped])
            dropped += 1
        del self._frames[:dropped]
        self.first_seq += dropped

    def durable_lines(self, seq: int, max_lines: int, max_bytes: int) -> Sequence[bytes]:
        """Return durable lines from a number on that is held here; the first comes even if it is beyond `max_bytes`."""
        start = seq - self.first_seq
        lines: list[bytes] = []
        size_bytes = 0
        for frame in self._frames[start : start + min(max_lines, self.durable_seq - seq + 1)]:
            size_bytes += len(frame)
            if size_bytes > max_bytes and lines:
                break
            lines.append(line_of(frame))
        return lines
