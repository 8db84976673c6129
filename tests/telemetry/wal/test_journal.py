import errno
from pathlib import Path
from random import Random

import pytest

from telemetry.batch import Position
from telemetry.errors import SpoolError
from telemetry.events import encode
from telemetry.wal.disk import RealDisk
from telemetry.wal.frame import encode_frame
from telemetry.wal.journal import Journal
from telemetry.wal.segment import SegmentHeader, encode_header, file_name
from tests.support import sample_events
from tests.support.spools.shadow_disk import ShadowDisk

HOME = Path("/spool/0")
PRODUCER = "01a1-producer"


def line(epoch: int, seq: int) -> bytes:
    return encode(sample_events.served(), PRODUCER, epoch, seq)


def records(epoch: int, first: int, last: int) -> list[bytes]:
    return [encode_frame(seq, line(epoch, seq)) for seq in range(first, last + 1)]


@pytest.fixture
def disk() -> ShadowDisk:
    disk = ShadowDisk(Random(1))
    disk.make_directory(HOME)
    return disk


def journal(disk: ShadowDisk, *, segment_bytes: int = 64 * 1024, age_s: float = 60.0) -> Journal:
    return Journal(disk, HOME, segment_bytes, age_s)


def recovered(disk: ShadowDisk, replaced: tuple[str, ...] = ()) -> Journal:
    one = journal(disk)
    one.recover(replaced)
    return one


def numbers(one: Journal) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    place = Position(0, 0)
    while (run := one.read(place, 3, 10**6)) is not None:
        assert list(run.lines) == [line(run.epoch, seq) for seq in range(run.first_seq, run.last.seq + 1)]
        found += [(run.epoch, seq) for seq in range(run.first_seq, run.last.seq + 1)]
        place = run.last
    return found


def wals(disk: ShadowDisk) -> list[str]:
    return [name for name in disk.names(HOME) if name.endswith(".wal")]


def test_written_frames_survive_a_power_cut(disk: ShadowDisk) -> None:
    """All of it, in order, once `write` returned."""
    one = journal(disk)
    one.write(PRODUCER, 1, 1, records(1, 1, 4))
    one.write(PRODUCER, 1, 5, records(1, 5, 6))
    one.write(PRODUCER, 2, 1, records(2, 1, 2))
    assert len(one.segments) == 2
    for seed in range(20):
        after = recovered(disk.after_power_cut(Random(seed)))
        assert numbers(after) == [(1, seq) for seq in range(1, 7)] + [(2, 1), (2, 2)]
        assert (after.last, after.last_seq(1), after.last_seq(9), after.events) == (Position(2, 2), 6, 0, 8)


def test_frames_of_a_killed_writer_are_synced_before_they_count(disk: ShadowDisk) -> None:
    """They were written and not synced. The next process may ship them, so a later power cut must not lose them."""
    one = journal(disk)
    one.write(PRODUCER, 1, 1, records(1, 1, 2))
    disk.refusals = {"sync": errno.EIO}
    segment = one.segments[0]
    assert one._open_segment is not None
    one._open_segment.file.write_at(b"".join(records(1, 3, 4)), segment.end)
    disk = disk.after_kill(Random(1))
    assert numbers(recovered(disk)) == [(1, 1), (1, 2), (1, 3), (1, 4)]
    for seed in range(20):
        assert len(numbers(recovered(disk.after_power_cut(Random(seed))))) == 4


@pytest.mark.parametrize("refusal", ["write", "sync", "create", "directory"])
def test_a_refused_write_abandons_the_segment(disk: ShadowDisk, refusal: str) -> None:
    """Its file is not touched again; the same frames go to another one, and count once."""
    one = journal(disk, segment_bytes=10)
    one.write(PRODUCER, 1, 1, records(1, 1, 3))
    if refusal in ("create", "directory"):
        one.close_segment()
    disk.refusals = {refusal: errno.EIO}
    with pytest.raises(OSError, match="Input/output"):
        one.write(PRODUCER, 1, 4, records(1, 4, 9))
    assert numbers(one) == [(1, 1), (1, 2), (1, 3)]
    disk.refusals = {}
    one.write(PRODUCER, 1, 4, records(1, 4, 9))
    assert [segment.header.first_seq for segment in one.segments] == [1, 4]
    assert numbers(one) == [(1, seq) for seq in range(1, 10)]
    for seed in range(20):
        assert numbers(recovered(disk.after_power_cut(Random(seed)))) == numbers(one)


def test_an_empty_abandoned_segment_is_removed_before_the_next_counts(disk: ShadowDisk) -> None:
    """Otherwise a power cut could bring back events that have other numbers now."""
    one = journal(disk)
    disk.refusals = {"sync": errno.EIO}
    with pytest.raises(OSError, match="Input/output"):
        one.write(PRODUCER, 1, 1, records(1, 1, 3))
    assert len(wals(disk)) == 1
    disk.refusals = {}
    one.write(PRODUCER, 2, 1, records(2, 1, 3))
    for seed in range(20):
        assert numbers(recovered(disk.after_power_cut(Random(seed)))) == [(2, 1), (2, 2), (2, 3)]


@pytest.mark.parametrize("refusal", ["write", "sync"])
def test_a_segment_whose_first_write_is_refused_is_begun_again_by_the_next_process(
    disk: ShadowDisk, refusal: str
) -> None:
    """Its name is needed for the same records."""

    def hit(name: str) -> None:
        if name == "spool.rotated":
            disk.refusals = {refusal: errno.EIO}

    one = Journal(disk, HOME, 65536, 60.0, hit)
    with pytest.raises(OSError, match="Input/output"):
        one.write(PRODUCER, 1, 1, records(1, 1, 3))
    assert one.segments == []
    one = journal(disk)
    disk.refusals = {}
    one.recover()
    one.write(PRODUCER, 1, 1, records(1, 1, 3))
    assert numbers(one) == [(1, 1), (1, 2), (1, 3)]


def test_a_segment_whose_first_write_is_refused_is_begun_again_by_the_same_process(disk: ShadowDisk) -> None:
    """The discarded file is removed first."""
    refuse = True

    def hit(name: str) -> None:
        if name == "spool.written" and refuse:
            raise OSError(errno.EIO, "Input/output error")

    one = Journal(disk, HOME, 65536, 60.0, hit)
    with pytest.raises(OSError, match="Input/output"):
        one.write(PRODUCER, 1, 1, records(1, 1, 3))
    refuse = False
    one.write(PRODUCER, 1, 1, records(1, 1, 3))
    assert numbers(one) == numbers(recovered(disk)) == [(1, 1), (1, 2), (1, 3)]


def test_a_segment_ends_by_size_and_by_age(disk: ShadowDisk) -> None:
    """A full or an old one is not written to any more; one write is never divided."""
    now_s = [10_000_000.0]
    one = Journal(disk, HOME, 64 * 1024, 60.0, clock=lambda: now_s[0])
    one.write(PRODUCER, 1, 1, records(1, 1, 140))
    assert one.size_bytes > 50_000
    one.write(PRODUCER, 1, 141, records(1, 141, 200))
    assert [segment.header.first_seq for segment in one.segments] == [1, 141]
    one.write(PRODUCER, 1, 201, records(1, 201, 201))
    one.write(PRODUCER, 1, 202, records(1, 202, 202))
    now_s[0] += 60
    one.write(PRODUCER, 1, 203, records(1, 203, 203))
    one.write(PRODUCER, 1, 204, records(1, 204, 600))
    assert [segment.header.first_seq for segment in one.segments] == [1, 141, 203, 204]
    assert len(numbers(one)) == one.events == 600


def test_only_whole_segments_are_released_and_the_current_one_when_it_is_old(disk: ShadowDisk) -> None:
    """By the archive's watermark, oldest first."""
    one = journal(disk)
    for first in (1, 4, 7):
        one.write(PRODUCER, 1, first, records(1, first, first + 2))
        one.close_segment()
    one.write(PRODUCER, 1, 10, records(1, 10, 12))
    assert one.release(Position(1, 2)) == 0
    assert one.release(Position(1, 8)) == 6
    assert wals(disk) == [file_name(SegmentHeader(PRODUCER, 1, first)) for first in (7, 10)]
    assert one.release(Position(1, 12)) == 3
    assert one.release(Position(1, 12)) == 0
    assert one.release(Position(1, 12), rotate=True) == 3
    assert (wals(disk), one.segments, one.last, one.size_bytes) == ([], [], Position(0, 0), 0)
    one.write(PRODUCER, 1, 13, records(1, 13, 13))
    one.segments[0].opened_s -= 60
    assert one.release(Position(2, 0)) == 1


def test_a_file_that_cannot_be_removed_is_tried_again(disk: ShadowDisk) -> None:
    """Its events count until it is removed."""
    one = journal(disk)
    one.write(PRODUCER, 1, 1, records(1, 1, 3))
    one.close_segment()
    disk.refusals = {"unlink": errno.EIO}
    with pytest.raises(OSError, match="Input/output"):
        one.release(Position(1, 3))
    assert one.events == 3
    disk.refusals = {}
    assert one.release(Position(1, 3)) == 3


def test_a_newer_versions_segment_is_left_alone(tmp_path: Path) -> None:
    """A program that cannot read a segment does not open the slot."""
    import struct
    import zlib

    data = bytearray(encode_header(SegmentHeader(PRODUCER, 1, 1)))
    struct.pack_into("<I", data, 8, 2)
    data[92:96] = zlib.crc32(data[:92]).to_bytes(4, "little")
    path = tmp_path / file_name(SegmentHeader(PRODUCER, 1, 1))
    path.write_bytes(data)
    with pytest.raises(SpoolError, match="newer version"):
        Journal(RealDisk(), tmp_path, 65536, 60.0).recover()
    assert path.exists()


def test_recovery_removes_empty_and_replaced_segments(disk: ShadowDisk) -> None:
    """A segment that was begun and not written to, and those whose events were written anew."""
    one = journal(disk)
    one.write(PRODUCER, 1, 1, records(1, 1, 3))
    one.close_segment()
    one.write(PRODUCER, 1, 4, records(1, 4, 5))
    disk.create(HOME / file_name(SegmentHeader(PRODUCER, 1, 6)), 65536)
    again = recovered(disk, replaced=(file_name(SegmentHeader(PRODUCER, 1, 1)),))
    assert numbers(again) == [(1, 4), (1, 5)]
    assert len(wals(disk)) == 1
    for seed in range(20):
        assert len(wals(disk.after_power_cut(Random(seed)))) == 1


def test_the_fuller_one_of_a_segment_and_its_copy_counts(disk: ShadowDisk) -> None:
    """Two files with one header are one segment."""
    one = journal(disk)
    one.write(PRODUCER, 1, 1, records(1, 1, 3))
    copy = bytes(disk.data_of(one.segments[0].path))
    disk.create(HOME / "copy.wal", 65536).write_at(copy, 0)
    disk.data_of(one.segments[0].path)[200] ^= 1
    assert numbers(recovered(disk)) == [(1, 1), (1, 2), (1, 3)]


def test_an_unreadable_directory_is_a_spool_error() -> None:
    """A missing directory raises SpoolError."""
    with pytest.raises(SpoolError, match="cannot be read"):
        Journal(RealDisk(), Path("/nonexistent"), 65536, 60.0).recover()


def test_discarded_segments_are_removed(disk: ShadowDisk) -> None:
    """Its files are removed now, or before anything else is written."""
    one = journal(disk)
    for epoch in (1, 2, 3):
        one.write(PRODUCER, epoch, 1, records(epoch, 1, 2))
    one.discard(lambda header: header.epoch == 1)
    one.remove_discarded()
    assert numbers(one) == [(2, 1), (2, 2), (3, 1), (3, 2)]
    one.discard(lambda header: header.epoch == 3)
    assert (len(wals(disk)), numbers(one)) == (2, [(2, 1), (2, 2)])
    one.write(PRODUCER, 3, 1, records(3, 1, 1))
    assert numbers(recovered(disk)) == [(2, 1), (2, 2), (3, 1)]
    assert repr(one).startswith("<Journal /spool/0 [<Segment 2-1..2")
