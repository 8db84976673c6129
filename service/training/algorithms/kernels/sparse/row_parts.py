"""The parts into which the rows of a table are cut: those whose sums are added, and those that workers share.

Invariant: parts depend on the number of rows alone, so that sums over them do not depend on what computes them. All
begin at a multiple of `BLOCK_ROWS`; a part for sums is a number of whole parts of work. Up to 16,384 rows there is one
part for sums. There are few of them, because each sum of a table's rows is a table of its own.
"""

from typing import Final

BLOCK_ROWS: Final = 2048
"""Rows that linear algebra takes at a time."""

_FEW_PARTS: Final = 8
_MOST_PARTS: Final = 64
_PART_ROWS: Final = _FEW_PARTS * BLOCK_ROWS
_SUMMED_ROWS: Final = 1 << 20  # of a part for sums, where 8 would be larger


def part_rows(n: int) -> int:
    """Return the rows of a part of work: a block, or more so that there are at most 8 parts, or 64 of many rows."""
    size = BLOCK_ROWS
    while size < _PART_ROWS and size * _FEW_PARTS < n:
        size *= 2
    return max(size, _rounded_up(-(-n // _MOST_PARTS), _PART_ROWS) if n > _MOST_PARTS * _PART_ROWS else 0)


def summed_rows(n: int) -> int:
    """Return the rows of a part whose sum is added to those of the parts before it: at most 8 up to 8 million rows."""
    wanted = min(max(-(-n // _FEW_PARTS), _PART_ROWS), _SUMMED_ROWS)
    return _rounded_up(wanted, part_rows(n))


def _rounded_up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def ranges(n: int, size: int) -> list[tuple[int, int]]:
    """Return the first row of each part and that after its last, of 0 to n."""
    return [(start, min(start + size, n)) for start in range(0, n, size)]
