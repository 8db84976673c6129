import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.events import encode
from telemetry.wal.frame import FEEDBACK, HEADER_BYTES, SERVED, SYSTEM, encode_frame, frame_at, line_of, scan, seq_of
from tests.support import sample_events

LINE = encode(sample_events.served(), "p", 1, 7)


def lines(count: int, size_bytes: int = 3) -> list[bytes]:
    return [encode(sample_events.served(user_id="u" * size_bytes), "p", 1, seq) for seq in range(1, count + 1)]


def seqs(data: bytes, start: int = 0) -> list[int]:
    return [record.seq for record in scan(data, start, len(data))]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (LINE, SERVED),
        (encode(sample_events.feedback(), "p", 1, 7), FEEDBACK),
        (b'{"schema":1,"class":"system","x":1}\n', SYSTEM),
        (b"?\n", 0),
    ],
)
def test_a_frame_decodes_to_what_was_framed(line: bytes, kind: int) -> None:
    """Number, kind and line come back; its end is the offset of the next frame."""
    framed = encode_frame(7, line)
    data = b"xx" + framed + b"yy"
    record = frame_at(data, 2, len(data))
    assert record is not None
    assert (record.seq, record.kind, record.end) == (7, kind, 2 + len(framed))
    assert data[record.line_start : record.end] == line == line_of(framed)
    assert seq_of(framed) == 7


@given(bit=st.integers(0, 8 * len(encode_frame(7, LINE)) - 1))
def test_a_damaged_frame_is_no_frame(bit: int) -> None:
    """With any bit changed there is no frame."""
    data = bytearray(encode_frame(7, LINE))
    data[bit // 8] ^= 1 << bit % 8
    assert frame_at(bytes(data), 0, len(data)) is None


@pytest.mark.parametrize("start", [-1, 0, 5, HEADER_BYTES])
def test_there_is_no_frame_in_zeros_or_beyond_the_end(start: int) -> None:
    """Neither reserved space nor bytes behind the last frame hold a frame."""
    assert frame_at(bytes(100), start, 100) is None
    framed = encode_frame(7, LINE)
    assert frame_at(framed, 0, len(framed) - 1) is None
    assert seqs(bytes(1000)) == []


def test_scanning_continues_behind_damage() -> None:
    """A damaged frame costs itself, and zeros between frames cost nothing."""
    framed = [encode_frame(seq, line) for seq, line in enumerate(lines(5), 1)]
    data = bytearray(b"".join(framed[:2]) + bytes(700) + b"".join(framed[2:]) + bytes(50))
    assert seqs(bytes(data)) == [1, 2, 3, 4, 5]
    data[len(framed[0]) + 3] ^= 1
    assert seqs(bytes(data)) == [1, 3, 4, 5]
    assert seqs(bytes(data), 30) == [3, 4, 5]


@given(data=st.binary(max_size=300), start=st.integers(-20, 320), insert=st.booleans())
def test_scanning_ends_whatever_the_bytes_are(data: bytes, start: int, insert: bool) -> None:
    """Random bytes hold no frame, and neither do the beginnings of lines among them."""
    if insert:
        data = data[:100] + b'{"schema":' * 3 + data[100:]
    assert list(scan(data, start, len(data))) == []


def test_a_text_in_a_line_is_not_the_beginning_of_one() -> None:
    """A user's text cannot look like the start of a line, because JSON escapes its quotes."""
    framed = encode_frame(1, encode(sample_events.feedback(user_id='{"schema":1'), "p", 1, 1))
    assert framed.count(b'{"schema":') == 1
