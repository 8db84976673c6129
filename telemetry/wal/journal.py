"""The segments of one slot, in order: the part of the write-ahead log that survives a power cut.

Invariants:

- `write` returns after fdatasync, and so does `recover` for what it found; a new segment's name is synced before its
  first record is written.
- After a failed write or sync the segment is poisoned: its file is never written or synced again, because a second
  sync may say yes to what the first one lost. What the failed write left in it does not count, for the next segment
  begins with the same number, and a segment's numbers end where the next one begins. If all of it does not count, it is
  gone before anything else becomes durable.
- Only `release` and `retire` remove a segment, whole, oldest first: by the archive's watermark, or because its events
  have been written anew under another identity.

    [WRITTEN] --fdatasync--> [DURABLE] --watermark--> [FORGOTTEN]
        |
        +--error--> poisoned: the same events are written to a new segment, or refused

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
    of_newer_version,
    read_run,
    read_whole,
)

_LEAST_BYTES = 64 * 1024


class Run(NamedTuple):
    """A dense run of lines of one epoch."""

    epoch: int
    first_seq: int
    lines: Sequence[bytes]

    @property
    def last(self) -> Position:
        """The place of the last line."""
        return Position(self.epoch, self.first_seq + len(self.lines) - 1)


class _Writing(NamedTuple):
    """The segment that is being written, and how many bytes it may take."""

    segment: Segment
    file: File
    room_bytes: int


class Journal:
    """One slot's segments.

    Args:
        disk: The file system.
        directory: The slot's directory.
        segment_bytes: The size of a segment; smaller ones are made where the disk has little room.
        segment_age_s: A segment older than this is not written to any more, so that it can go once it is archived.
        hit: Called with the names of failpoints.

    Attributes:
        segments: Those that hold something, by place.
    """

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        segment_bytes: int,
        segment_age_s: float,
        hit: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._segment_age_s = segment_age_s
        self._hit = hit
        self.segments: list[Segment] = []
        self._writing: _Writing | None = None
        # Files that do not count; nothing is written before they are removed.
        self._void: list[Path] = []

    def __repr__(self) -> str:
        return f"<Journal {self._directory} {self.segments!r}>"

    @property
    def size_bytes(self) -> int:
        """What the records take."""
        return sum(segment.end for segment in self.segments)

    @property
    def events(self) -> int:
        """How many numbers it holds."""
        return sum(segment.last_seq - segment.header.first_seq + 1 for segment in self.segments)

    @property
    def last(self) -> Position:
        """The place of the last event held; (0, 0) if there is none."""
        return self.segments[-1].last if self.segments else Position(0, 0)

    def last_seq(self, epoch: int) -> int:
        """Return the last number held of an epoch, or 0."""
        return max((one.last_seq for one in self.segments if one.header.epoch == epoch), default=0)

    def recover(self, replaced: Collection[str] = (), cut: Mapping[tuple[str, int], int] | None = None) -> None:
        """Find what an earlier process left.

        Args:
            replaced: Names of files whose events have been written anew; removed now.
            cut: By (producer, epoch): the last number that has not been written anew.

        Raises:
            SpoolError: A segment was written by a newer version, or cannot be read.
        """
        found: dict[tuple[str, int, int], tuple[int, Segment]] = {}
        try:
            for name in sorted(self._disk.names(self._directory)):
                path = self._directory / name
                if not name.endswith(SUFFIX):
                    continue
                if name in replaced:
                    self._void.append(path)
                    continue
                if of_newer_version(self._disk.read(path, 0, DATA_START)):
                    raise SpoolError(f"{path} was written by a newer version of this program")
                whole = read_whole(self._disk, path)
                if whole is None:
                    # Begun and never written to, or nothing of it can be read.
                    self._void.append(path)
                    continue
                # Its writer may have been killed before it did that.
                self._disk.sync(path)
                last_seq = min(max(whole.lines), (cut or {}).get(whole.header[:2], MAX_NUMBER))
                segment = Segment(path, whole.header, last_seq, whole.end)
                kept = found.get(whole.header)
                if kept is None or kept[0] < len(whole.lines):
                    found[whole.header] = len(whole.lines), segment
            self.remove_void()
        except OSError as error:
            raise SpoolError(f"the segments in {self._directory} cannot be read: {error.strerror}") from None
        self.segments = sorted((segment for _, segment in found.values()), key=lambda one: one.first)
        for one, following in zip(self.segments, self.segments[1:], strict=False):
            if one.header.epoch == following.header.epoch:
                one.last_seq = min(one.last_seq, following.header.first_seq - 1)

    def retire(self, gone: Callable[[SegmentHeader], bool]) -> None:
        """Remove segments whose events are held elsewhere.

        Args:
            gone: Which.

        Raises:
            OSError: A file cannot be removed.
        """
        self.abandon()
        self._void += [one.path for one in self.segments if gone(one.header)]
        self.segments = [one for one in self.segments if not gone(one.header)]
        self.remove_void()

    def write(self, producer: str, epoch: int, first_seq: int, records: Sequence[bytes]) -> None:
        """Write records and make them survive a power cut, all of them or, as far as anybody is told, none.

        Args:
            producer: Whose they are.
            epoch: Their epoch.
            first_seq: The number of the first; the numbers are dense.
            records: Framed records.

        Raises:
            OSError: The disk refused; nothing of this is held.
        """
        data = b"".join(records)
        try:
            segment, file, _ = self._place_for(SegmentHeader(producer, epoch, first_seq), len(data))
            file.write_at(data, segment.end)
            self._hit("spool.written")
            file.sync()
            self._hit("spool.synced")
        except BaseException:
            self._poison()
            raise
        place = segment.end
        for seq, record in enumerate(records, first_seq):
            segment.grew(seq, place)
            place += len(record)
        segment.end = place
        segment.last_seq = first_seq + len(records) - 1

    def read(self, after: Position, max_lines: int, max_bytes: int) -> Run | None:
        """Read what follows a place.

        Args:
            after: The place.
            max_lines: The most lines.
            max_bytes: The most bytes of lines; the first comes even if it is longer.

        Returns:
            The next lines, of one epoch; damage makes the run begin later. None if nothing readable follows.

        Raises:
            OSError: A file cannot be read.
        """
        for segment in self.segments:
            if segment.last <= after:
                continue
            seq = max(after.seq + 1, segment.header.first_seq) if after.epoch == segment.header.epoch else 0
            seq = max(seq, segment.header.first_seq)
            first, lines = read_run(self._disk, segment, seq, min(max_lines, segment.last_seq - seq + 1), max_bytes)
            if lines:
                return Run(segment.header.epoch, first, lines)
        return None

    def release(self, through: Position, *, rotate: bool = False) -> int:
        """Remove segments that the archive has.

        Args:
            through: The archive's watermark.
            rotate: Whether the segment that is being written may go too, instead of when it is old.

        Returns:
            How many events they held.

        Raises:
            OSError: A file cannot be removed; the segments before it are.
        """
        count = 0
        while self.segments and self.segments[0].last <= through:
            segment = self.segments[0]
            if self._writing is not None and self._writing.segment is segment:
                if not rotate and time.monotonic() - segment.opened_s < self._segment_age_s:
                    break
                self.abandon()
            with suppress(FileNotFoundError):
                self._disk.unlink(segment.path)
            self._hit("spool.released")
            del self.segments[0]
            count += segment.last_seq - segment.header.first_seq + 1
        return count

    def forget(self, producer: str, epoch: int) -> None:
        """Leave out what was written under an identity that is not to be after all.

        Args:
            producer: The producer id.
            epoch: The epoch.
        """
        self.abandon()
        self._void += [one.path for one in self.segments if one.header[:2] == (producer, epoch)]
        self.segments = [one for one in self.segments if one.header[:2] != (producer, epoch)]

    @property
    def void(self) -> list[str]:
        """The names of files that do not count and could not be removed yet."""
        return [path.name for path in self._void]

    def remove_void(self) -> None:
        """Remove the files that do not count, so that no power cut brings them back.

        Raises:
            OSError: The disk refused; it is tried again before anything is written.
        """
        for path in self._void:
            with suppress(FileNotFoundError):
                self._disk.unlink(path)
        if self._void:
            self._disk.sync_directory(self._directory)
            self._void.clear()

    def abandon(self) -> None:
        """Never write to the current segment again."""
        writing, self._writing = self._writing, None
        if writing is not None:
            with suppress(OSError):
                writing.file.close()
            if writing.segment.end == DATA_START:
                # Nothing in it counts; the next one may need its name.
                self.segments.remove(writing.segment)
                self._void.append(writing.segment.path)

    def _poison(self) -> None:
        if self._writing is not None:
            # Or else, if we were killed now, the next process would find it, and its sync would say that it is there.
            with suppress(OSError):
                self._writing.file.truncate(self._writing.segment.end)
        self.abandon()

    def _place_for(self, header: SegmentHeader, size_bytes: int) -> _Writing:
        writing = self._writing
        if writing is not None:
            segment = writing.segment
            goes_on = header == segment.header._replace(first_seq=segment.last_seq + 1)
            fits = segment.end + size_bytes <= writing.room_bytes
            if goes_on and fits and time.monotonic() - segment.opened_s < self._segment_age_s:
                return writing
        self.abandon()
        return self._begin(header, size_bytes)

    def _begin(self, header: SegmentHeader, size_bytes: int) -> _Writing:
        path = self._directory / file_name(header)
        self.remove_void()
        # An eighth of the room at most: other replicas write there too.
        wanted_bytes = min(self._segment_bytes, self._disk.free_bytes(self._directory) // 8)
        room_bytes = max(wanted_bytes, _LEAST_BYTES, DATA_START + size_bytes)
        file = self._disk.create(path, room_bytes)
        try:
            file.write_at(encode_header(header), 0)
            file.sync()
            self._disk.sync_directory(self._directory)
        except BaseException:
            file.close()
            self._void.append(path)
            raise
        self._hit("spool.rotated")
        segment = Segment(path, header, header.first_seq - 1, DATA_START, time.monotonic())
        self._writing = _Writing(segment, file, room_bytes)
        self.segments.append(segment)
        return self._writing
