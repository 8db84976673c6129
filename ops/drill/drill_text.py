"""A verdict as plain lines, and as a table for a terminal; pure. Both contain every breach and reason in full."""

from rich.console import RenderableType

from ops.drill.verdict import BREACH, HEADINGS, PASS, SKIPPED, DrillVerdict, VerdictRow, cells

_COLOURS = {PASS: "green", BREACH: "bold red", SKIPPED: "yellow"}


def as_lines(verdict: DrillVerdict) -> list[str]:
    """Return the verdict as plain lines, for logs and pipes."""
    lines = []
    for row in verdict.rows:
        texts = zip(HEADINGS[:-1], cells(row)[:-1], strict=True)
        figures = ", ".join(f"{name} {text}" for name, text in texts if text not in {"", "-"})
        label = f"{row.name} ({row.row}, {row.title})" if row.row else row.name
        lines.append(f"{row.verdict}: {label}{': ' if figures else ''}{figures}")
        lines += [f"  {sentence}" for sentence in _sentences(row)]
    return [*lines, *_summary(verdict)]


def as_table(verdict: DrillVerdict) -> RenderableType:
    """Return the verdict for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), title_justify="left")
    table.add_column("fault", no_wrap=True)
    for heading in HEADINGS[:-1]:
        # In two lines, so that fourteen columns fit a terminal of 100.
        table.add_column(heading.replace(" ", "\n", 1), justify="right")
    table.add_column("")
    for row in verdict.rows:
        *figures, result = cells(row)
        table.add_row(row.name, *figures, Text(result, style=_COLOURS[result]))
    sentences = [f"{row.name}: {sentence}" for row in verdict.rows for sentence in _sentences(row)]
    return Group(table, *(Text(line) for line in [*sentences, *_summary(verdict)]))


def _sentences(row: VerdictRow) -> list[str]:
    return [*row.why, *row.notes]


def _summary(verdict: DrillVerdict) -> list[str]:
    done = [row for row in verdict.rows if row.verdict != SKIPPED]
    broken = sum(1 for row in done if row.verdict == BREACH)
    skipped = len(verdict.rows) - len(done)
    counts = f"{len(done) - broken} of {len(done)} rounds kept their promise, {skipped} faults were skipped"
    return [*verdict.breaches, *verdict.receipts, *verdict.notes, counts]
