"""Tables as text, drawn by rich: nothing is cut, control characters are escaped, lines are as long as the terminal."""

import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence

from ops.console.terminal import escape_controls


def table(
    heading: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Collection[int] = (),
    gap: int = 2,
    width: int | None = None,
) -> str:
    """Lay out a table; columns that do not fit follow below, behind the first one.

    Args:
        heading: The names of the columns.
        rows: The cells, as many in each row.
        left: The columns aligned to the left.
        gap: The spaces between two columns.
        width: The longest line wanted, in characters; one column may be wider. None for the terminal's width, and for
            no bound where there is no terminal: programs expect one line for each row.

    Returns:
        Lines without a final line feed, and an empty line between the parts of a folded table.
    """
    import io

    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[escape_controls(text, in_a_cell=True) for text in row] for row in (heading, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    parts = []
    for columns in _parts(widths, gap, width):
        drawn = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, show_header=False)
        for column in columns:
            drawn.add_column(justify="left" if column in left else "right", no_wrap=True)
        for row in cells:
            drawn.add_row(*(Text(row[column]) for column in columns))
        output = Console(file=io.StringIO(), width=sum(widths) + gap * len(widths), color_system=None)
        with output.capture() as captured:
            output.print(drawn)
        parts.append("\n".join(line.rstrip() for line in captured.get().splitlines()))
    return "\n\n".join(parts)


def _parts(widths: Sequence[int], gap: int, most: int) -> Iterator[list[int]]:
    """Yield the columns of each part, the first column in all of them."""
    part: list[int] = []
    used = 0
    for column, width in enumerate(widths):
        if len(part) > 1 and used + gap + width > most:
            yield part
            part, used = [0], widths[0]
        used += width + (gap if part else 0)
        part.append(column)
    yield part
