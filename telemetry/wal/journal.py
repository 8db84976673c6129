"""The segments of one slot, in order: the part of the write-ahead log that survives a power cut.

Invariants:

- `write` returns after fdatasync, and so does `recover` for what it found. A new segment's name is synced before its
  first frame is written.
- After a failed write or sync the segment is abandoned. Its file is never written or synced again, because a second
  sync may succeed although the first one lost data. The next segment begins with the number that failed, and a
  segment's numbers end where the next one begins, so what the failed write left does not count. A file of which nothing
  counts is removed before anything else becomes durable.
- Only `release` and `discard` remove a segment, whole: by the archive's watermark, or because its events were
  rewritten under another identity.

    [WRITTEN] --fdatasync--> [DURABLE] --watermark--> [RELEASED]
        |
        +--error--> abandoned: the same events are written to a new segment, or refused

Synchronous, and used by one thread at a time.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from telemetry.batch import MAX_NUMBER, Position
from telemetry.errors import SpoolError
from telemetry.wal.disk import Disk, File
from telemetry.wal.segment import (
    DATA_START,
    SUFFIX,
    Segment,
    SegmentHeader,
    encode_header,
    file_name,
    is_of_newer_version,
    read_run,
    read_segment,
)

_LEAST_BYTES = 64 * 1024


class Run(NamedTuple):
    """A dense run of lines of one epoch."""

    epoch: int
    first_seq: int
    lines: Sequence[bytes]

    @property
    def last(self) -> Position:
        """The position of the last line."""
        return Position(self.epoch, self.first_seq + len(self.lines) - 1)


class _OpenSegment(NamedTuple):
    segment: Segment
    file: File
    room_bytes: int


class Journal:
    """One slot's segments.

    Args:
        disk: The file system.
        directory: The slot's directory.
        segment_bytes: The size of a segment, reduced where the disk has little room.
        segment_age_s: The age at which a segment is closed, so that it can be released once it is archived.
        hit: Called with the names of failpoints.
        clock: A monotonic clock.

    Attributes:
        segments: Those that hold events, by position.
    """

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        segment_bytes: int,
        segment_age_s: float,
        hit: Callable[[str], None] = lambda _name: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._segment_age_s = segment_age_s
        self._hit = hit
        self._clock = clock
        self.segments: list[Segment] = []
        self._open_segment: _OpenSegment | None = None
        # Files of which nothing counts; nothing is written before they are removed.
        self._discarded: list[Path] = []

    def __repr__(self) -> str:
        return f"<Journal {self._directory} {self.segments!r}>"

    @property
    def size_bytes(self) -> int:
        """The size of all segments."""
        return sum(segment.end for segment in self.segments)

    @property
    def events(self) -> int:
        """How many numbers the segments cover."""
        return sum(segment.events for segment in self.segments)

    @property
    def last(self) -> Position:
        """The position of the last event held; (0, 0) if there is none."""
        return self.segments[-1].last if self.segments else Position(0, 0)

    @property
    def discarded(self) -> list[str]:
        """The names of discarded files that are not removed yet."""
        return [path.name for path in self._discarded]

    def last_seq(self, epoch: int) -> int:
        """Return the last number held of an epoch, or 0."""
        return max((one.last_seq for one in self.segments if one.header.epoch == epoch), default=0)

    def recover(self, replaced: Collection[str] = (), cut: Mapping[tuple[str, int], int] | None = None) -> None:
        """Find the segments that an earlier process left.

        Args:
            replaced: Names of files whose events were rewritten; removed now.
            cut: By (producer, epoch): the last number that was not rewritten.

        Raises:
            SpoolError: A segment is of a newer version, or cannot be read.
        """
        found: dict[SegmentHeader, tuple[int, Segment]] = {}
        try:
            for name in sorted(self._disk.names(self._directory)):
                path = self._directory / name
                if not name.endswith(SUFFIX):
                    continue
                if name in replaced:
                    self._discarded.append(path)
                    continue
                if is_of_newer_version(self._disk.read(path, 0, DATA_START)):
                    raise SpoolError(f"{path} was written by a newer version of this program.")
                contents = read_segment(self._disk, path)
                if contents is None:
                    # Begun and never written to, or unreadable.
                    self._discarded.append(path)
                    continue
                # Its writer may have been killed before the sync.
                self._disk.sync(path)
                last_seq = min(max(contents.lines), (cut or {}).get(contents.header[:2], MAX_NUMBER))
                segment = Segment(path, contents.header, last_seq, contents.end)
                # A copied file repeats a header; the one with more lines counts.
                kept = found.get(contents.header)
                if kept is None or kept[0] < len(contents.lines):
                    found[contents.header] = len(contents.lines), segment
            self.remove_discarded()
        except OSError as error:
            raise SpoolError(f"The segments in {self._directory} cannot be read: {error.strerror}.") from None
        self.segments = sorted((segment for _, segment in found.values()), key=lambda one: one.first)
        for one, following in zip(self.segments, self.segments[1:], strict=False):
            if one.header.epoch == following.header.epoch:
                one.last_seq = min(one.last_seq, following.header.first_seq - 1)

    def write(self, producer: str, epoch: int, first_seq: int, frames: Sequence[bytes]) -> None:
        """Write frames with dense numbers from `first_seq` on, durably: all of them or, if it raises, none.

        Raises:
            OSError: The disk refused.
        """
        data = b"".join(frames)
        try:
            segment, file, _ = self._segment_for(SegmentHeader(producer, epoch, first_seq), len(data))
            file.write_at(data, segment.end)
            self._hit("spool.written")
            file.sync()
            self._hit("spool.synced")
        except BaseException:
            self._abandon_segment()
            raise
        offset = segment.end
        for seq, frame in enumerate(frames, first_seq):
            segment.note_frame(seq, offset)
            offset += len(frame)
        segment.end = offset
        segment.last_seq = first_seq + len(frames) - 1

    def read(self, after: Position, max_lines: int, max_bytes: int) -> Run | None:
        """Read the lines after a position; the first line comes even if it is longer than `max_bytes`.

        Returns:
            The next lines, of one epoch; damage makes the run begin later. None if nothing readable follows.

        Raises:
            OSError: A file cannot be read.
        """
        for segment in self.segments:
            if segment.last <= after:
                continue
            seq = segment.header.first_seq
            if after.epoch == segment.header.epoch:
                seq = max(after.seq + 1, seq)
            first, lines = read_run(self._disk, segment, seq, min(max_lines, segment.last_seq - seq + 1), max_bytes)
            if lines:
                return Run(segment.header.epoch, first, lines)
        return None

    def release(self, through: Position, *, rotate: bool = False) -> int:
        """Remove segments up to the archive's watermark, oldest first; return how many events they held.

        Args:
            through: The watermark.
            rotate: Whether to close and remove the open segment too, even if it is young.

        Raises:
            OSError: A file cannot be removed; the segments before it are.
        """
        count = 0
        while self.segments and self.segments[0].last <= through:
            segment = self.segments[0]
            if self._open_segment is not None and self._open_segment.segment is segment:
                if not rotate and self._clock() - segment.opened_s < self._segment_age_s:
                    break
                self.close_segment()
            with suppress(FileNotFoundError):
                self._disk.unlink(segment.path)
            self._hit("spool.released")
            del self.segments[0]
            count += segment.events
        return count

    def discard(self, applies: Callable[[SegmentHeader], bool]) -> None:
        """Drop segments that do not count; their files go with `remove_discarded`, at the latest before any write."""
        self.close_segment()
        self._discarded += [one.path for one in self.segments if applies(one.header)]
        self.segments = [one for one in self.segments if not applies(one.header)]

    def remove_discarded(self) -> None:
        """Remove the files that do not count, so that no power cut brings them back.

        Raises:
            OSError: The disk refused; it is tried again before anything is written.
        """
        for path in self._discarded:
            with suppress(FileNotFoundError):
                self._disk.unlink(path)
        if self._discarded:
            self._disk.sync_directory(self._directory)
            self._discarded.clear()

    def close_segment(self) -> None:
        """Write no more to the open segment."""
        opened, self._open_segment = self._open_segment, None
        if opened is not None:
            with suppress(OSError):
                opened.file.close()
            if opened.segment.end == DATA_START:
                # It is empty, and the next one may need its name.
                self.segments.remove(opened.segment)
                self._discarded.append(opened.segment.path)

    def _abandon_segment(self) -> None:
        if self._open_segment is not None:
            # Otherwise the next process, after a kill, would find the refused frames and sync them as accepted.
            with suppress(OSError):
                self._open_segment.file.truncate(self._open_segment.segment.end)
        self.close_segment()

    def _segment_for(self, header: SegmentHeader, size_bytes: int) -> _OpenSegment:
        opened = self._open_segment
        if opened is not None:
            segment = opened.segment
            continues = header == segment.header._replace(first_seq=segment.last_seq + 1)
            fits = segment.end + size_bytes <= opened.room_bytes
            if continues and fits and self._clock() - segment.opened_s < self._segment_age_s:
                return opened
        self.close_segment()
        return self._begin_segment(header, size_bytes)

    def _begin_segment(self, header: SegmentHeader, size_bytes: int) -> _OpenSegment:
        path = self._directory / file_name(header)
        self.remove_discarded()
        # At most an eighth of the free room: other replicas write there too.
        wanted_bytes = min(self._segment_bytes, self._disk.free_bytes(self._directory) // 8)
        room_bytes = max(wanted_bytes, _LEAST_BYTES, DATA_START + size_bytes)
        file = self._disk.create(path, room_bytes)
        try:
            file.write_at(encode_header(header), 0)
            file.sync()
            self._disk.sync_directory(self._directory)
        except BaseException:
            file.close()
            self._discarded.append(path)
            raise
        self._hit("spool.rotated")
        segment = Segment(path, header, header.first_seq - 1, DATA_START, self._clock())
        self._open_segment = _OpenSegment(segment, file, room_bytes)
        self.segments.append(segment)
        return self._open_segment
