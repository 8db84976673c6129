"""A summary rendered to a value: a JSON object, plain lines, or a table for a terminal; pure.

The invariant: the three say the same, and this file prints nothing. The keys of the JSON object are a contract.
"""

from dataclasses import dataclass, field
from typing import Any

from rich.console import RenderableType

from ops.load.summary import Histogram, Summary, Tally

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}
# An event loop keeps time in whole milliseconds and a shared machine adds some; beyond this the schedule is not kept.
LAG_LIMIT_MS = 25.0


@dataclass(frozen=True)
class Run:
    """What is said about a run beside its summary.

    Attributes:
        rate_rps: What was asked for.
        duration_s: How long requests were sent.
        settings: The options, as plain values.
        sources: What the ids are and where they came from.
        missed: One sentence per missed objective.
        interrupted: Whether it was stopped before its time.
    """

    target: str
    rate_rps: float
    duration_s: float
    settings: dict[str, Any]
    sources: dict[str, str]
    missed: list[str] = field(default_factory=list)
    interrupted: bool = False


def lag_warning(summary: Summary) -> str | None:
    """Say so in one sentence if the generator was late itself; None if it kept its schedule."""
    p99_s = summary.lag.percentile_s(0.99)
    if p99_s is None or p99_s * 1e3 <= LAG_LIMIT_MS:
        return None
    return (
        f"This generator did not keep its own schedule: 1 % of the requests left more than {p99_s * 1e3:.0f} ms late, "
        "and the latencies contain that; give it more processor time or a lower --rate."
    )


def as_json(run: Run, summary: Summary) -> dict[str, Any]:
    """Return the object that `loadtest --json` prints; times in ms, null where nothing was counted."""
    total = summary.total()
    return {
        "target": run.target,
        "rate_rps": run.rate_rps,
        "achieved_rps": round(total.requests / run.duration_s, 1) if run.duration_s > 0 else 0.0,
        "duration_s": round(run.duration_s, 3),
        **_tally_json(total),
        "users": dict(sorted(summary.users.items())),
        "lag_ms": _latency_json(summary.lag),
        "on_schedule": lag_warning(summary) is None,
        "kinds": {kind: _tally_json(tally) for kind, tally in sorted(summary.kinds.items())},
        "sources": run.sources,
        "settings": run.settings,
        "objectives_missed": run.missed,
        "interrupted": run.interrupted,
    }


def as_lines(run: Run, summary: Summary) -> list[str]:
    """Return the report as plain lines, for logs and pipes."""
    figures = as_json(run, summary)
    head = f"{figures['requests']} requests in {figures['duration_s']:g} s to {run.target}"
    lines = [f"{head}, {figures['achieved_rps']:g}/s of {run.rate_rps:g}/s asked for"]
    lines += [f"{name}: {_row_text(figures_of)}" for name, figures_of in _rows(figures)]
    lines += _notes(summary)
    return lines


def as_table(run: Run, summary: Summary) -> RenderableType:
    """Return the report for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    figures = as_json(run, summary)
    title = f"{figures['achieved_rps']:g} requests/s of {run.rate_rps:g} asked for, {figures['duration_s']:g} s"
    # Without lines between columns it fits a terminal of 80.
    table = Table(title=f"{title}; latencies in ms", box=None, padding=(0, 1, 0, 0), title_justify="left")
    table.add_column("")
    for heading in ("requests", "failed", "retried", "degraded", *PERCENTILES, "max"):
        table.add_column(heading.replace("_", "."), justify="right")
    for name, row in _rows(figures):
        counts = (str(row[key]) for key in ("requests", "failed", "retried", "degraded"))
        table.add_row(name, *counts, *(_ms_text(value) for value in row["latency_ms"].values()))
    return Group(table, *(Text(note) for note in _notes(summary)))


def _rows(figures: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [*figures["kinds"].items(), ("all", figures)]


def _row_text(row: dict[str, Any]) -> str:
    parts = [f"{row[key]} {key}" for key in ("requests", "failed", "retried", "degraded")]
    parts += [f"{name.replace('_', '.')} {_ms_text(value)} ms" for name, value in row["latency_ms"].items()]
    return ", ".join(parts)


def _notes(summary: Summary) -> list[str]:
    """Return what a row has no room for: causes with an example each, retries, degradation levels, events, lag."""
    total = summary.total()
    notes = [
        f"failed by {cause}: {count}, for example: {total.examples[cause]}"
        for cause, count in total.failures.most_common()
    ]
    notes += [f"sent again after {cause}: {count}" for cause, count in total.retries.most_common()]
    notes += [f"degraded ({level}): {count}" for level, count in total.degradation_levels.most_common()]
    if total.shortfalls:
        notes.append(f"lists with a stated shortfall: {total.shortfalls}")
    users = ", ".join(f"{count} {name}" for name, count in sorted(summary.users.items()))
    notes.append(f"users: {users or 'none'}; feedback events accepted: {total.events}")
    warning = lag_warning(summary)
    return notes if warning is None else [*notes, warning]


def _tally_json(tally: Tally) -> dict[str, Any]:
    return {
        "requests": tally.requests,
        "failed": tally.failed,
        "failures": dict(sorted(tally.failures.items())),
        "examples": dict(sorted(tally.examples.items())),
        "retried": tally.retries.total(),
        "retries": dict(sorted(tally.retries.items())),
        "degraded": tally.degradation_levels.total(),
        "degradation_levels": dict(sorted(tally.degradation_levels.items())),
        "shortfalls": tally.shortfalls,
        "events_accepted": tally.events,
        "latency_ms": _latency_json(tally.latency),
    }


def _latency_json(histogram: Histogram) -> dict[str, float | None]:
    percentiles = {name: _ms(histogram.percentile_s(share)) for name, share in PERCENTILES.items()}
    return {**percentiles, "max": _ms(histogram.max_s) if histogram.count else None}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)


def _ms_text(value_ms: float | None) -> str:
    return "-" if value_ms is None else f"{value_ms:.1f}"
