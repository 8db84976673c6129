"""A summary as a JSON object, as plain lines, and as a table for a terminal; pure.

Invariant: the three have the same content. The keys of the JSON object are a contract.
"""

from dataclasses import dataclass, field
from typing import Any

from ops.console.table import table
from ops.load.summary import Histogram, KindSummary, Summary

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}
# Event loops round to milliseconds and a shared machine adds some; beyond this the generator is late.
LAG_LIMIT_MS = 25.0


@dataclass(frozen=True)
class LoadTestRun:
    """The facts of a run besides its summary; `rate_rps` is the requested rate, `sources` those of the ids."""

    target: str
    rate_rps: float
    duration_s: float
    settings: dict[str, Any]
    sources: dict[str, str]
    missed: list[str] = field(default_factory=list)
    interrupted: bool = False


def lag_warning(summary: Summary) -> str | None:
    """Return a sentence if the generator itself was late; None if it kept its schedule."""
    p99_s = summary.lag.percentile_s(0.99)
    if p99_s is None or p99_s * 1e3 <= LAG_LIMIT_MS:
        return None
    return (
        f"The generator was late: 1 % of the requests left more than {p99_s * 1e3:.0f} ms after their time, and the "
        "latencies include that; give it more processor time or a lower --rate."
    )


def as_json(run: LoadTestRun, summary: Summary) -> dict[str, Any]:
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


def as_lines(run: LoadTestRun, summary: Summary) -> list[str]:
    """Return the report as plain lines, for logs and pipes."""
    figures = as_json(run, summary)
    head = f"{figures['requests']} requests in {figures['duration_s']:g} s to {run.target}"
    lines = [f"{head}, {figures['achieved_rps']:g}/s of {run.rate_rps:g}/s requested"]
    lines += [f"{name}: {_row_text(figures_of)}" for name, figures_of in _rows(figures)]
    lines += _notes(summary)
    return lines


def as_table(run: LoadTestRun, summary: Summary) -> str:
    """Return the report for a terminal."""
    figures = as_json(run, summary)
    counts = ("requests", "failed", "retried", "degraded")
    heading = ("", *counts, *(name.replace("_", ".") for name in PERCENTILES), "max")
    rows = [
        (name, *(str(row[key]) for key in counts), *map(_ms_text, row["latency_ms"].values()))
        for name, row in _rows(figures)
    ]
    title = f"{figures['achieved_rps']:g} requests/s of {run.rate_rps:g} requested, {figures['duration_s']:g} s"
    return "\n".join([f"{title}; latencies in ms", table(heading, rows, left=(0,), gap=1), *_notes(summary)])


def _rows(figures: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [*figures["kinds"].items(), ("all", figures)]


def _row_text(row: dict[str, Any]) -> str:
    parts = [f"{row[key]} {key}" for key in ("requests", "failed", "retried", "degraded")]
    parts += [f"{name.replace('_', '.')} {_ms_text(value)} ms" for name, value in row["latency_ms"].items()]
    return ", ".join(parts)


def _notes(summary: Summary) -> list[str]:
    """Return the lines after the rows: causes with an example each, retries, degradation levels, events, lag."""
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


def _tally_json(tally: KindSummary) -> dict[str, Any]:
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
