"""The page of `recollect chaos`: a timeline of each installation, the table of rounds, and how to repeat the drill."""

from collections.abc import Sequence
from typing import Any

from ops.drill.stage import Stage
from ops.drill.verdict import HEADINGS, DrillVerdict, VerdictRow, cells, receipt
from ops.pages import page
from ops.pages.timeline import LEGEND, timeline


def render(verdict: DrillVerdict, stages: Sequence[Stage], about: dict[str, Any]) -> str:
    """Return the page of a drill of some installations; `about` has `title`, `command` and further facts to list."""
    facts = {name.replace("_", " "): value for name, value in about.items() if name not in {"command", "title"}}
    return page.render(
        "drill.html.j2",
        title=about["title"],
        command=about["command"],
        facts="; ".join(_fact(name, value) for name, value in facts.items()),
        verdict=verdict,
        legend=LEGEND,
        stages=[(stage.title, f"{receipt(stage).capitalize()}.", timeline(stage)) for stage in stages],
        headings=HEADINGS,
        rows=[(row, _details(row), cells(row)) for row in verdict.rows],
    )


def _fact(name: str, value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {version}" for key, version in value.items())
    return f"{name} {value}"


def _details(row: VerdictRow) -> list[tuple[str, str]]:
    """Return the small lines under a row's name, each with its class."""
    lines = [("", f"{row.title}; promised: {row.promise}")]
    return lines + [(row.verdict, sentence) for sentence in row.why] + [("", note) for note in row.notes]
