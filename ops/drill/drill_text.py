"""A verdict as plain lines, and as a table for a terminal; pure. Both contain every breach and reason in full."""

from rich.text import Text

from ops.console.table import table
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


def as_table(verdict: DrillVerdict) -> Text:
    """Return the verdict for a terminal."""
    rows = [(row.name, row.verdict, *cells(row)[:-1]) for row in verdict.rows]
    drawn = Text(table(("fault", "verdict", *HEADINGS[:-1]), rows, left=(0, 1), gap=1))
    for result, colour in _COLOURS.items():
        drawn.highlight_words([result], colour)
    sentences = [f"{row.name}: {sentence}" for row in verdict.rows for sentence in _sentences(row)]
    return Text("\n").join([drawn, *map(Text, [*sentences, *_summary(verdict)])])


def _sentences(row: VerdictRow) -> list[str]:
    return [*row.why, *row.notes]


def _summary(verdict: DrillVerdict) -> list[str]:
    done = [row for row in verdict.rows if row.verdict != SKIPPED]
    broken = sum(1 for row in done if row.verdict == BREACH)
    skipped = len(verdict.rows) - len(done)
    counts = f"{len(done) - broken} of {len(done)} rounds kept their promise, {skipped} faults were skipped"
    return [*verdict.breaches, *verdict.receipts, *verdict.notes, counts]
