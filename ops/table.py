"""A table for people: columns as wide as what is in them, and nothing cut."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def table(heading: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[int] = (), gap: str = "  ") -> str:
    """Lay out a table.

    Args:
        heading: The names of the columns.
        rows: The cells, as many in each row.
        left: Columns that begin at the left; numbers do not.
        gap: What stands between two columns.

    Returns:
        Lines without their last line feed.
    """
    cells = [list(heading), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        gap.join(
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
