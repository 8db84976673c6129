from pathlib import Path
from random import Random

import pytest

from telemetry.batch import Position
from telemetry.errors import SpoolError
from telemetry.events import encode
from telemetry.wal.disk import RealDisk
from telemetry.wal.drops import DROP_KINDS, DropCount, UnrecordedDrops, read_drops
from telemetry.wal.frame import encode_frame
from telemetry.wal.ring import FILE_NAME, Ring, read_ring
from tests.support import sample_events

PAGE = 4096


def record(seq: int, epoch: int = 1, size_bytes: int = 10) -> bytes:
    return encode_frame(seq, encode(sample_events.served(user_id="u" * size_bytes), "p", epoch, seq))


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    ring = Ring.open(RealDisk(), tmp_path, 16 * PAGE)
    ring.reset(1)
    return ring


def reopened(directory: Path) -> Ring:
    """Open it again without closing it, as after a kill."""
    return Ring.open(RealDisk(), directory, 16 * PAGE)


def test_an_appended_frame_is_in_the_file_without_closing(ring: Ring, tmp_path: Path) -> None:
    """The bytes are in the file as soon as `append` returns."""
    assert all(ring.append(record(seq)) for seq in range(1, 4))
    again = reopened(tmp_path)
    assert (again.epoch, again.durable_seq) == (1, 0)
    assert again.left == {seq: record(seq) for seq in range(1, 4)}
    assert repr(ring) == f"<Ring epoch=1 {ring.head - ring.tail} of {15 * PAGE} B>"


def test_a_new_ring_has_its_space_reserved(ring: Ring, tmp_path: Path) -> None:
    """No page of the file lacks a block, so that writing to memory cannot fail."""
    stat = (tmp_path / FILE_NAME).stat()
    assert stat.st_blocks * 512 >= stat.st_size == 16 * PAGE
    assert ring.left == {}


def test_a_ring_fills_and_has_room_again_after_a_release(ring: Ring, tmp_path: Path) -> None:
    """Over many rounds: never more than its capacity, never across its end, and released bytes are zero."""
    rng = Random(1)
    seq = released = 0
    ends: list[int] = []
    for _ in range(30):
        while ring.append(record(seq + 1, size_bytes=(seq * 37) % 900)):
            seq += 1
            ends.append(ring.head)
            assert ring.head - ring.tail <= ring.capacity
        assert list(reopened(tmp_path).left) == list(range(released + 1, seq + 1))
        released = rng.randint(released + 1, seq)
        ring.release(ends[released - 1], released)
        left = reopened(tmp_path)
        assert (list(left.left), left.durable_seq) == (list(range(released + 1, seq + 1)), released)
    ring.release(ring.head, seq)
    assert (tmp_path / FILE_NAME).read_bytes()[PAGE:] == bytes(15 * PAGE)
    assert ring.head - ring.tail == 0


def test_a_full_round_is_released_whole(ring: Ring, tmp_path: Path) -> None:
    """A release of exactly the capacity leaves nothing behind."""
    size_bytes = len(record(1))
    assert ring.append(record(1))
    ring.release(ring.head, 1)
    while ring.append(record(2)):
        pass
    assert ring.head - ring.tail > ring.capacity - 2 * size_bytes
    ring.release(ring.head, 2)
    assert (tmp_path / FILE_NAME).read_bytes()[PAGE:] == bytes(15 * PAGE)


def test_a_new_epoch_begins_empty(ring: Ring, tmp_path: Path) -> None:
    """Nothing of the epoch before is left, and the next process sees that."""
    ring.append(record(1))
    ring.reset(2)
    assert (tmp_path / FILE_NAME).read_bytes()[PAGE:] == bytes(15 * PAGE)
    assert ring.append(record(1, epoch=2))
    again = reopened(tmp_path)
    assert (again.epoch, again.left) == (2, {1: record(1, epoch=2)})


def test_frames_of_an_older_epoch_do_not_count(ring: Ring, tmp_path: Path) -> None:
    """A page that a power cut restored holds events that are settled."""
    ring.append(record(1))
    page = (tmp_path / FILE_NAME).read_bytes()[PAGE : 2 * PAGE]
    ring.reset(2)
    with (tmp_path / FILE_NAME).open("r+b") as file:
        file.seek(PAGE)
        file.write(page)
    again = reopened(tmp_path)
    assert (again.epoch, again.left) == (2, {})


@pytest.mark.parametrize("place", [0, 8, 64, 128, 300])
def test_damage_to_the_first_page_costs_no_frame(ring: Ring, tmp_path: Path, place: int) -> None:
    """Frames are found by their own marks."""
    for seq in range(1, 9):
        ring.append(record(seq))
        if seq in (3, 4):
            ring.release(ring.head, seq)
    with (tmp_path / FILE_NAME).open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 40)
    again = reopened(tmp_path)
    assert (again.epoch, list(again.left)) == (1, [5, 6, 7, 8])
    assert again.durable_seq in (3, 4)
    assert again.capacity == ring.capacity


def test_the_older_cell_counts_when_the_newer_one_is_torn(ring: Ring, tmp_path: Path) -> None:
    """A process that is killed while it writes a cell leaves the one before."""
    for seq in range(1, 4):
        ring.append(record(seq))
        ring.release(ring.head, seq)
    data = (tmp_path / FILE_NAME).read_bytes()
    newest = max((64, 128), key=lambda start: data[start : start + 8])
    with (tmp_path / FILE_NAME).open("r+b") as file:
        file.seek(newest)
        file.write(b"\x09")
    assert reopened(tmp_path).durable_seq == 2


def test_a_file_that_was_cut_off_gets_its_length_back(ring: Ring, tmp_path: Path) -> None:
    """What is left of it counts."""
    ring.append(record(1))
    with (tmp_path / FILE_NAME).open("r+b") as file:
        file.truncate(2 * PAGE)
    again = reopened(tmp_path)
    assert (list(again.left), again.capacity) == ([1], 15 * PAGE)
    assert (tmp_path / FILE_NAME).stat().st_size == 16 * PAGE


def test_a_file_that_is_no_ring_becomes_an_empty_one(tmp_path: Path) -> None:
    """Foreign bytes are no frames."""
    (tmp_path / FILE_NAME).write_bytes(b"\x07" * 20 * PAGE)
    again = reopened(tmp_path)
    assert (again.epoch, again.left, read_drops(again.buffer)) == (0, {}, {})
    (tmp_path / FILE_NAME).write_bytes(b"")
    assert reopened(tmp_path).capacity == 15 * PAGE


def test_drops_are_counted_in_the_ring(ring: Ring, tmp_path: Path) -> None:
    """They outlive the process and the epoch, each kind for itself, until they are recorded; damage is no count."""
    drops = UnrecordedDrops(ring.buffer)
    drops.add(DROP_KINDS[0], 5, 2)
    drops.add(DROP_KINDS[3], 1, 9)
    ring.reset(2)
    assert read_drops(reopened(tmp_path).buffer) == {0: DropCount(5, 2), 3: DropCount(1, 9)}
    drops.remove(0)
    assert read_drops(reopened(tmp_path).buffer) == {3: DropCount(1, 9)}
    with (tmp_path / FILE_NAME).open("r+b") as file:
        file.seek(256 + 3 * 20 + 7)
        file.write(b"\x40")
    assert read_drops(reopened(tmp_path).buffer) == {}


def test_reading_a_ring_changes_nothing_and_stops_at_a_missing_frame(ring: Ring, tmp_path: Path) -> None:
    """A reader gets the frames of the holder up to the first missing one."""
    for seq in range(1, 6):
        ring.append(record(seq))
    UnrecordedDrops(ring.buffer).add(DROP_KINDS[1], 2, 3)
    before = (tmp_path / FILE_NAME).read_bytes()
    assert read_ring(RealDisk(), tmp_path) == (
        Position(1, 0),
        [record(seq) for seq in range(1, 6)],
        {1: DropCount(2, 3)},
    )
    assert (tmp_path / FILE_NAME).read_bytes() == before
    with (tmp_path / FILE_NAME).open("r+b") as file:
        file.seek(PAGE + 2 * len(record(1)) + 30)
        file.write(b"\xff")
    assert read_ring(RealDisk(), tmp_path).frames == [record(1), record(2)]


def test_reading_where_there_is_no_ring(tmp_path: Path) -> None:
    """A slot without a ring, or with another file in its place, has no frames; an unreadable one raises."""
    assert read_ring(RealDisk(), tmp_path) == (Position(0, 0), [], {})
    (tmp_path / FILE_NAME).write_bytes(b"\x07" * 20 * PAGE)
    assert read_ring(RealDisk(), tmp_path) == (Position(0, 0), [], {})
    (tmp_path / FILE_NAME).unlink()
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(SpoolError, match="cannot be read"):
        read_ring(RealDisk(), tmp_path)
