"""A table for people: columns as wide as what is in them, nothing cut, control characters escaped, no line too long."""

import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence

from ops.console.terminal import escaped


def table(
    heading: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Collection[int] = (),
    gap: str = "  ",
    width: int | None = None,
) -> str:
    """Lay out a table; what is too wide is folded: the columns that do not fit follow below, behind the first one.

    Args:
        heading: The names of the columns.
        rows: The cells, as many in each row.
        left: Columns that begin at the left; numbers do not.
        gap: What stands between two columns.
        width: The longest line wanted, in characters; None for the terminal's, and for any where there is none: a
            program that reads lines wants a row in each. A column alone may be wider.

    Returns:
        Lines without their last line feed; an empty one between the parts of a folded table.
    """
    cells = [[escaped(text, in_a_cell=True) for text in row] for row in (heading, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    return "\n\n".join(
        "\n".join(
            gap.join(
                row[column].ljust(widths[column]) if column in left else row[column].rjust(widths[column])
                for column in part
            ).rstrip()
            for row in cells
        )
        for part in _parts(widths, len(gap), width)
    )


def _parts(widths: Sequence[int], gap: int, most: int) -> Iterator[list[int]]:
    """Yield the columns of each part, the first column in all of them."""
    part: list[int] = []
    taken = 0
    for column, width in enumerate(widths):
        if len(part) > 1 and taken + gap + width > most:
            yield part
            part, taken = [0], widths[0]
        taken += width + (gap if part else 0)
        part.append(column)
    yield part
