from pathlib import Path

import pytest

from telemetry.batch import Position
from telemetry.events import encode
from telemetry.wal.disk import RealDisk
from telemetry.wal.frame import encode_frame
from telemetry.wal.segment import (
    DATA_START,
    INDEX_EVERY_BYTES,
    Segment,
    SegmentHeader,
    decode_header,
    encode_header,
    file_name,
    is_of_newer_version,
    read_run,
    read_segment,
)
from tests.support import sample_events

HEADER = SegmentHeader("01a1-producer", 3, 11)
DISK = RealDisk()


def line(seq: int, header: SegmentHeader = HEADER, size_bytes: int = 5) -> bytes:
    return encode(sample_events.served(user_id="u" * size_bytes), header.producer, header.epoch, seq)


def records(first: int, last: int, size_bytes: int = 5) -> list[bytes]:
    return [encode_frame(seq, line(seq, size_bytes=size_bytes)) for seq in range(first, last + 1)]


def write(directory: Path, data: bytes, header: SegmentHeader = HEADER) -> Path:
    path = directory / file_name(header)
    path.write_bytes(data)
    return path


def segment(path: Path, last_seq: int) -> Segment:
    found = read_segment(DISK, path)
    assert found is not None
    return Segment(path, found.header, last_seq, found.end)


def test_a_header_decodes_to_what_was_encoded() -> None:
    """It takes the bytes before the first frame; names sort as positions do."""
    data = encode_header(HEADER)
    assert len(data) == DATA_START
    assert decode_header(data) == HEADER
    assert file_name(HEADER) == "0000000003-000000000011.wal"
    assert file_name(HEADER._replace(epoch=10)) > file_name(HEADER._replace(first_seq=10**9))


@pytest.mark.parametrize("place", [0, 8, 12, 76, 84, 92])
def test_a_damaged_header_is_none(place: int) -> None:
    """Each of its fields is covered by the checksum."""
    data = bytearray(encode_header(HEADER))
    data[place] ^= 1
    assert decode_header(bytes(data)) is None
    assert decode_header(bytes(data[:50])) is None


def test_only_a_newer_version_is_one() -> None:
    """Damage is not taken for a newer version, which would keep the slot closed."""
    import struct
    import zlib

    newer = bytearray(encode_header(HEADER))
    struct.pack_into("<I", newer, 8, 2)
    assert not is_of_newer_version(bytes(newer))
    newer[92:96] = zlib.crc32(newer[:92]).to_bytes(4, "little")
    assert is_of_newer_version(bytes(newer))
    assert decode_header(bytes(newer)) is None
    assert not is_of_newer_version(encode_header(HEADER))
    assert not is_of_newer_version(b"")


def test_a_whole_segment_is_read_with_the_zeros_behind_it(tmp_path: Path) -> None:
    """Space that is reserved and not used holds nothing."""
    body = b"".join(records(11, 20))
    path = write(tmp_path, encode_header(HEADER) + body + bytes(5000))
    found = read_segment(DISK, path)
    assert found is not None
    assert (found.header, found.end) == (HEADER, DATA_START + len(body))
    assert found.lines == {seq: line(seq) for seq in range(11, 21)}


@pytest.mark.parametrize("data", [b"", b"\0" * 4096, encode_header(HEADER), b"?" * 300])
def test_a_segment_without_a_frame_has_no_contents(tmp_path: Path, data: bytes) -> None:
    """Nothing of it is read."""
    assert read_segment(DISK, write(tmp_path, data)) is None


def test_a_damaged_header_is_replaced_by_name_and_events(tmp_path: Path) -> None:
    """The producer id comes from the events, and the first number from the name."""
    path = write(tmp_path, bytes(DATA_START) + b"".join(records(12, 20)))
    found = read_segment(DISK, path)
    assert found is not None
    assert found.header == HEADER
    assert list(found.lines) == list(range(12, 21))
    elsewhere = path.rename(tmp_path / "nothing.wal")
    assert read_segment(DISK, elsewhere) is None


def test_copied_frames_do_not_count(tmp_path: Path) -> None:
    """A frame of another epoch, another producer or an earlier segment does not belong to this one."""
    foreign = [
        encode_frame(13, line(13, HEADER._replace(epoch=2))),
        encode_frame(14, line(14, HEADER._replace(producer="another"))),
        encode_frame(10, line(10)),
    ]
    path = write(tmp_path, encode_header(HEADER) + b"".join([*records(11, 14), *foreign, *records(15, 15)]))
    found = read_segment(DISK, path)
    assert found is not None
    assert found.lines == {seq: line(seq) for seq in range(11, 16)}
    assert read_run(DISK, segment(path, 15), 11, 100, 10**6) == (11, [line(seq) for seq in range(11, 16)])


def test_a_run_begins_and_ends_where_it_should(tmp_path: Path) -> None:
    """By number of lines or bytes; the first line comes even if it is longer."""
    path = write(tmp_path, encode_header(HEADER) + b"".join(records(11, 20)))
    whole = segment(path, 20)
    assert read_run(DISK, whole, 13, 3, 10**6) == (13, [line(seq) for seq in (13, 14, 15)])
    assert read_run(DISK, whole, 19, 3, 10**6) == (19, [line(19), line(20)])
    assert read_run(DISK, whole, 11, 9, 2 * len(line(11))) == (11, [line(11), line(12)])
    assert read_run(DISK, whole, 11, 9, 1) == (11, [line(11)])
    assert read_run(DISK, whole, 21, 9, 1) == (21, [])


def test_a_run_goes_round_damage(tmp_path: Path) -> None:
    """It ends before a damaged frame, and the next one begins behind it."""
    data = bytearray(encode_header(HEADER) + b"".join(records(11, 20)))
    data[data.index(line(14))] ^= 1
    path = write(tmp_path, bytes(data))
    whole = segment(path, 20)
    assert read_run(DISK, whole, 11, 100, 10**6) == (11, [line(seq) for seq in (11, 12, 13)])
    assert read_run(DISK, whole, 14, 100, 10**6) == (15, [line(seq) for seq in range(15, 21)])
    assert read_run(DISK, whole, 14, 2, 10**6) == (15, [line(15), line(16)])
    # Its numbers end where the next segment begins.
    assert read_run(DISK, segment(path, 16), 14, 100, 10**6) == (15, [line(15), line(16)])


def test_a_large_segment_is_read_from_near_the_position(tmp_path: Path) -> None:
    """A read of a late number does not read the frames before it."""
    path = write(tmp_path, encode_header(HEADER) + b"".join(records(11, 1010, size_bytes=900)))
    whole = segment(path, 1010)
    assert whole.end > 10 * INDEX_EVERY_BYTES
    assert read_run(DISK, whole, 11, 1, 1)[1] == [line(11, size_bytes=900)]
    sizes: list[int] = []

    class Watched(RealDisk):
        def read(self, path: Path, offset: int = 0, size_bytes: int | None = None) -> bytes:
            data = super().read(path, offset, size_bytes)
            sizes.append(len(data))
            return data

    first, lines = read_run(Watched(), whole, 900, 5, 10**6)
    assert (first, len(lines)) == (900, 5)
    assert sum(sizes) <= 2 * INDEX_EVERY_BYTES + 10**6
    assert read_run(Watched(), whole, 1010, 5, 10**6) == (1010, [line(1010, size_bytes=900)])


def test_a_segment_has_its_first_and_last_position() -> None:
    """They are used for sorting."""
    one = Segment(Path("x"), HEADER, 10, DATA_START)
    assert (one.first, one.last, one.events) == (Position(3, 11), Position(3, 10), 0)
    assert repr(one) == "<Segment 3-11..10 128 B>"
