"""The parts of a table's rows depend on their number alone, and are whole blocks."""

from hypothesis import given
from hypothesis import strategies as st

from service.training.algorithms.kernels.sparse.row_parts import BLOCK_ROWS, part_rows, ranges, summed_rows


@given(n=st.integers(1, 10**9))
def test_parts_are_whole_blocks_and_make_up_the_parts_for_sums(n: int) -> None:
    """So that a block is in one part; there are no more parts than a process adds up quickly."""
    part, summed = part_rows(n), summed_rows(n)
    assert part % BLOCK_ROWS == 0
    assert summed % part == 0
    assert part == BLOCK_ROWS or n > part * 4
    assert -(-n // part) <= 64
    assert -(-n // summed) <= (8 if n <= 1 << 23 else 64)


def test_few_rows_have_one_sum() -> None:
    """The sum of up to 16,384 rows is that of a single pass."""
    assert summed_rows(1) == summed_rows(16_384) == 16_384
    assert len(ranges(16_384, summed_rows(16_384))) == 1
    assert len(ranges(16_385, summed_rows(16_385))) == 2


@given(n=st.integers(0, 1000), size=st.integers(1, 300))
def test_ranges_follow_each_other(n: int, size: int) -> None:
    """They are all rows, in order; only the last one is shorter."""
    found = ranges(n, size)
    assert [row for start, stop in found for row in range(start, stop)] == list(range(n))
    assert all(stop - start == size for start, stop in found[:-1])
