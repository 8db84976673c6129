"""The log of one producer's events that are not in the archive yet; here it is held in memory.

Invariants:

- Bound: `held_bytes` never exceeds `budget_bytes`; lines without the reserve stop at `served_share` of it.
- When full it refuses; nothing that was appended is ever dropped. Only the archive's watermark releases.
- Numbers are dense: the lines held are exactly `released_through + 1` to `next_seq - 1`.
- The sum: appended = released + relinquished + held, at every moment.

Called from the event loop's thread only. The write-ahead log of a later step keeps this interface.
"""

from collections.abc import Callable, Sequence

# What a bytes object and its place in the list cost beside the line itself.
_OVERHEAD_BYTES = 48
# Releasing moves a start mark; the list itself is cut when this many dead places lead it.
_COMPACT_LINES = 4096


class EventBuffer:
    """A bounded, numbered run of lines.

    Args:
        budget_bytes: The most that may be held, overhead included.
        served_share: The share of the budget for lines without a claim on the reserve, 0 to 1.
    """

    def __init__(self, budget_bytes: int, served_share: float) -> None:
        self._limit_bytes = budget_bytes
        self._served_limit_bytes = int(budget_bytes * served_share)
        self._lines: list[bytes] = []
        self._start = 0
        self.held_bytes = 0
        self.next_seq = 1
        self.appended = 0
        self.released = 0
        self.relinquished = 0

    def __repr__(self) -> str:
        return f"<EventBuffer {self.released_through + 1}..{self.next_seq - 1} {self.held_bytes} B>"

    @property
    def held(self) -> int:
        """How many lines are held."""
        return len(self._lines) - self._start

    @property
    def released_through(self) -> int:
        """The last number that is no longer held; 0 at the start of an epoch."""
        return self.next_seq - 1 - self.held

    def fits(self, size_bytes: int, *, lines: int = 1, reserve: bool) -> bool:
        """Tell whether lines could be appended now.

        Args:
            size_bytes: Their bytes together.
            lines: How many they are.
            reserve: Whether they may use the reserve.

        Returns:
            True if they all fit.
        """
        limit_bytes = self._limit_bytes if reserve else self._served_limit_bytes
        return self.held_bytes + size_bytes + lines * _OVERHEAD_BYTES <= limit_bytes

    def append(self, line: bytes) -> None:
        """Take a line as number `next_seq`; the caller has asked `fits`.

        Args:
            line: The encoded event, carrying that number.
        """
        self._lines.append(line)
        self.held_bytes += len(line) + _OVERHEAD_BYTES
        self.next_seq += 1
        self.appended += 1

    def read_from(self, seq: int, max_lines: int, max_bytes: int) -> Sequence[bytes]:
        """Copy out a run of lines for a batch.

        Args:
            seq: The first number wanted; still held, or `next_seq`.
            max_lines: The most lines.
            max_bytes: The most bytes; the first line comes even if it is longer.

        Returns:
            The lines seq, seq + 1, …; empty if there is none yet.
        """
        first = self._start + seq - self.released_through - 1
        size_bytes = 0
        end = first
        for line in self._lines[first : first + max_lines]:
            size_bytes += len(line)
            if size_bytes > max_bytes and end > first:
                break
            end += 1
        return self._lines[first:end]

    def release_through(self, seq: int) -> int:
        """Forget lines that the archive has.

        Args:
            seq: The archive's watermark in the current epoch; older ones do nothing.

        Returns:
            How many lines were released.
        """
        count = min(max(seq - self.released_through, 0), self.held)
        self._forget(count)
        self.released += count
        return count

    def renumber(self, shipped_through: int, rewrite: Callable[[bytes, int], bytes]) -> None:
        """Start a new epoch: number again from 1 what the old stream does not have.

        Lines up to `shipped_through` are in the old stream, under their old numbers, and are left to it.

        Args:
            shipped_through: The last number that the old stream is known to have.
            rewrite: Gives a line its new number.
        """
        count = min(max(shipped_through - self.released_through, 0), self.held)
        self._forget(count)
        self.relinquished += count
        self._lines = [rewrite(line, number) for number, line in enumerate(self._lines[self._start :], start=1)]
        self._start = 0
        self.held_bytes = sum(map(len, self._lines)) + _OVERHEAD_BYTES * len(self._lines)
        self.next_seq = len(self._lines) + 1

    def _forget(self, count: int) -> None:
        end = self._start + count
        self.held_bytes -= sum(map(len, self._lines[self._start : end])) + _OVERHEAD_BYTES * count
        if end >= _COMPACT_LINES or end == len(self._lines):
            del self._lines[:end]
            self._start = 0
        else:
            # The memory must go now, even though the places stay for a while.
            self._lines[self._start : end] = [b""] * count
            self._start = end
