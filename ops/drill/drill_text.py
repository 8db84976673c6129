"""A verdict as plain lines or as a table for a terminal; pure.

The invariant: both say the same, and every breach and every reason for skipping is said in full.
"""

from rich.console import RenderableType

from ops.drill.verdict import BREACH, HEADINGS, PASS, SKIPPED, Row, Verdict, cells

_COLOURS = {PASS: "green", BREACH: "bold red", SKIPPED: "yellow"}


def as_lines(verdict: Verdict) -> list[str]:
    """Return the verdict as plain lines, for logs and pipes."""
    lines = []
    for row in verdict.rows:
        figures = [
            f"{name} {cell}" for name, cell in zip(HEADINGS[:-1], cells(row)[:-1], strict=True) if cell not in {"", "-"}
        ]
        lines.append(f"{row.verdict}: {_label(row)}{': ' if figures else ''}{', '.join(figures)}")
        lines += [f"  {sentence}" for sentence in _said(row)]
    return [*lines, *_tail(verdict)]


def as_table(verdict: Verdict) -> RenderableType:
    """Return the verdict for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), title_justify="left")
    table.add_column("fault", no_wrap=True)
    for heading in HEADINGS[:-1]:
        # Two words, two lines: fourteen columns fit a terminal of 100.
        table.add_column(heading.replace(" ", "\n", 1), justify="right")
    table.add_column("")
    for row in verdict.rows:
        *figures, word = cells(row)
        table.add_row(row.name, *figures, Text(word, style=_COLOURS[word]))
    said = [f"{row.name}: {sentence}" for row in verdict.rows for sentence in _said(row)]
    return Group(table, *(Text(line) for line in [*said, *_tail(verdict)]))


def _label(row: Row) -> str:
    return f"{row.name} ({row.row}, {row.title})" if row.row else row.name


def _said(row: Row) -> list[str]:
    return [*row.why, *row.notes]


def _tail(verdict: Verdict) -> list[str]:
    done = [row for row in verdict.rows if row.verdict != SKIPPED]
    broken = sum(1 for row in done if row.verdict == BREACH)
    skipped = len(verdict.rows) - len(done)
    sentence = f"{len(done) - broken} of {len(done)} rounds kept their promise, {skipped} faults were skipped"
    return [*verdict.breaches, *verdict.receipts, *verdict.notes, sentence]
