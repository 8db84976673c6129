import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.batch import Batch, Entry, Position, from_entry, to_fields
from telemetry.errors import BadBatchError

LINES = [b'{"a":1}\n', b'{"a":2}\n', b'{"a":3}\n']


def entry(**changes: bytes) -> Entry:
    fields = to_fields(Batch(2, 5, LINES))
    return Entry("2-7", fields | {name.encode(): value for name, value in changes.items()})


def test_an_entry_reads_back_as_its_batch() -> None:
    """Id and fields carry everything."""
    batch = Batch(2, 5, LINES)
    assert (batch.entry_id, batch.last_seq) == ("2-7", 7)
    assert from_entry(Entry(batch.entry_id, to_fields(batch))) == batch


@pytest.mark.parametrize(
    ("damaged", "problem"),
    [
        (entry(crc32=b"00000000"), "checksum"),
        (entry(crc32=b"x"), "not a number"),
        (entry(n=b"2"), "instead of 2"),
        (entry(n=b"0"), "instead of 0"),
        (entry(first_seq=b"4"), "start at 4"),
        (entry(data=b'{"a":1}\n'), "checksum"),
        (Entry("2-8", to_fields(Batch(2, 5, LINES))), "start at 5"),
        (Entry("2-7", {}), "no field"),
        (Entry("2-7", None), "trimmed"),
        (Entry("99999999999999999999-0", {}), "no producer"),
        (Entry("x", {}), "not a stream id"),
        (Entry("2-2", to_fields(Batch(2, 0, LINES))), "start at 0"),
        (Entry("2-7", to_fields(Batch(2, 5, [b"a\n", b"b\n", b"c"]))), "whole lines"),
    ],
)
def test_an_invalid_entry_is_refused(damaged: Entry, problem: str) -> None:
    """A batch that is damaged, incomplete or misnumbered is not one."""
    with pytest.raises(BadBatchError, match=problem):
        from_entry(damaged)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_one_wrong_byte_is_always_noticed(at: int, value: int) -> None:
    """The checksum covers every byte of the data."""
    data = bytearray(b"".join(LINES) * 40)
    at %= len(data)
    before = bytes(data)
    fields = to_fields(Batch(1, 1, before.splitlines(keepends=True)))
    data[at] = value
    if bytes(data) != before:
        with pytest.raises(BadBatchError):
            from_entry(Entry("1-120", fields | {b"data": bytes(data)}))


def test_positions_compare_as_redis_compares_ids() -> None:
    """By epoch, then by number, and not as text."""
    assert Position.parse("1-9") < Position.parse("1-10") < Position.parse("2-1")
    assert str(Position(3, 4)) == "3-4"
