"""A drill as one HTML page that needs nothing else: a timeline of each installation, the table, how to repeat it; pure.

The invariant: the page loads nothing, from no network and no disk, and reads the same in light and dark. Every text
that came from a run is escaped.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from ops.drill.figures import bins
from ops.drill.stage import Round, Stage
from ops.drill.verdict import HEADINGS, Row, Verdict, cells, receipt

_WIDTH, _LEFT, _RIGHT = 1180.0, 96.0, 12.0
_BANDS_TOP, _BANDS_HEIGHT = 8.0, 44.0
_LATENCY_TOP, _LATENCY_HEIGHT = 66.0, 190.0
_FAILED_TOP, _FAILED_HEIGHT = 270.0, 34.0
_WAITING_TOP, _WAITING_HEIGHT = 318.0, 80.0
_PARTS_TOP, _PART_HEIGHT = 412.0, 16.0
_BIN_S = 0.25
_LEAST_MS, _MOST_MS = 0.5, 2500.0
_MS_TICKS = (1, 10, 100, 1000)
_LABEL_PX = 6.2

_STYLE = """
:root{--ink:#1d2733;--soft:#5d6b7a;--line:#d5dce4;--paper:#fff;--band:#e9edf2;--strike:#c46a00;--p50:#2f6fb0;--p99:#8a4bb0;
--bad:#c62828;--good:#2e7d32;--wait:#00796b;--skip:#8a6d00}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9ef;--soft:#9aa8b7;--line:#36414d;--paper:#12171d;--band:#1f2730;
--strike:#f0a04b;--p50:#74b3f0;--p99:#c79be8;--bad:#ff7b72;--good:#7ccf82;--wait:#4fc3b0;--skip:#e0c257}}
*{box-sizing:border-box}body{margin:0;padding:28px 24px 60px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}main{max-width:1180px;margin:auto}
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:34px 0 6px}p{margin:4px 0}.soft,.soft a{color:var(--soft)}
.PASS{color:var(--good)}.BREACH{color:var(--bad);font-weight:650}.SKIPPED{color:var(--skip)}
.scroll{overflow-x:auto;padding-bottom:2px}.scroll::-webkit-scrollbar{height:11px}
.scroll::-webkit-scrollbar-track{background:var(--band);border-radius:6px}
.scroll::-webkit-scrollbar-thumb{background:var(--soft);border-radius:6px;border:2px solid var(--band)}
@supports not selector(::-webkit-scrollbar){.scroll{scrollbar-color:var(--soft) var(--band);scrollbar-width:thin}}
table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--soft);text-align:right;vertical-align:bottom;padding:4px 8px;
border-bottom:1px solid var(--line)}
td{text-align:right;padding:5px 8px;border-bottom:1px solid var(--line);vertical-align:top;white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal;min-width:250px}
td small{display:block;color:var(--soft);line-height:1.35}td small.BREACH{color:var(--bad);font-weight:400}
code{font:13px/1.5 ui-monospace,Menlo,Consolas,monospace;background:var(--band);padding:2px 6px;border-radius:4px;
overflow-wrap:anywhere}
svg{display:block;width:100%;min-width:900px;height:auto;font:11px system-ui,sans-serif}svg text{fill:var(--soft)}
svg .name{fill:var(--ink)}.grid{stroke:var(--line);stroke-width:1}.band{fill:var(--band)}
.strike{fill:var(--strike);opacity:.9}.struck{fill:var(--strike);stroke:var(--paper);stroke-width:.8}
.hold,.lane{fill:var(--strike);opacity:.28}.p50,.p99,.wait{fill:none;stroke-width:1.4;
stroke-linejoin:round}.p50{stroke:var(--p50)}.p99{stroke:var(--p99)}.wait{stroke:var(--wait)}
.start{stroke:var(--ink);stroke-width:1.4}
.failed{fill:var(--bad)}.retried{fill:var(--strike)}.away{fill:var(--bad);opacity:.75}.up{fill:var(--good);opacity:.35}
.key{display:inline-block;margin-right:14px}.key i{display:inline-block;width:11px;height:11px;border-radius:2px;
margin-right:5px;vertical-align:-1px}
"""


def render(verdict: Verdict, stages: Sequence[Stage], about: dict[str, Any]) -> str:
    """Return the page.

    Args:
        verdict: Of the drill.
        stages: The installations drilled.
        about: `title`, `command`, and whatever else is to be named.
    """
    word = "Every promise was kept" if verdict.ok else "A promise was broken"
    named = "; ".join(_named(name, value) for name, value in about.items() if name not in {"command", "title"})
    sentences = "".join(f'<p class="BREACH">{escape(sentence)}</p>' for sentence in verdict.breaches)
    sentences += "".join(f'<p class="soft">{escape(sentence)}</p>' for sentence in verdict.notes)
    timelines = "".join(_section(stage) for stage in stages)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(str(about['title']))}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{escape(str(about['title']))}</h1>"
        f'<p class="{"PASS" if verdict.ok else "BREACH"}">{word}.</p>{sentences}'
        f'<p class="soft">{escape(named)}</p><p>To repeat it: <code>{escape(str(about["command"]))}</code></p>'
        f"{timelines}{_table(verdict.rows)}</main></body></html>\n"
    )


def _named(name: str, value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {version}" for key, version in value.items())
    return f"{name.replace('_', ' ')} {value}"


def _table(rows: Iterable[Row]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in ("fault", *HEADINGS))
    body = "".join(_table_row(row) for row in rows)
    return (
        '<h2>The rounds</h2><div class="scroll" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        '<p class="soft">raw: requests that a client without retries would have lost. ready: the longest time from a '
        "kill until the part was ready. caught up: from the fault's end until no more events waited than three "
        "seconds bring.</p>"
    )


def _table_row(row: Row) -> str:
    label = f"{row.row} " if row.row else ""
    small = [("", f"{row.title}; promised: {row.promise}")]
    small += [(row.verdict, sentence) for sentence in row.why] + [("", note) for note in row.notes]
    texts = "".join(f'<small class="{kind}">{escape(text)}</small>' for kind, text in small)
    *figures, word = cells(row)
    data = "".join(f"<td>{escape(figure)}</td>" for figure in figures)
    return f'<tr><td>{label}<b>{escape(row.name)}</b>{texts}</td>{data}<td class="{word}">{word}</td></tr>'


def _section(stage: Stage) -> str:
    keys = "".join(
        f'<span class="key"><i style="background:var(--{colour})"></i>{name}</span> '
        for colour, name in (
            ("p50", "p50"),
            ("p99", "p99, ms, per 250 ms; lower is better"),
            ("bad", "failed requests; a part that is away"),
            ("strike", "a strike, also in the lane of the part that it struck; requests sent again"),
            ("wait", "events not yet archived; fewer is better"),
            ("ink", "a part was started again"),
        )
    )
    return (
        f"<h2>{escape(stage.title)}</h2><p>{escape(receipt(stage).capitalize())}.</p>"
        f'<p class="soft">{keys}</p><div class="scroll" tabindex="0">{_timeline(stage)}</div>'
    )


def _timeline(stage: Stage) -> str:
    end_s = max((done.to_s for done in stage.rounds), default=1.0)
    struck = {_part_of(target) for done in stage.rounds for band in done.bands for target in band.targets}
    names = sorted({change.name for change in stage.seen} | struck)
    height = _PARTS_TOP + _PART_HEIGHT * len(names) + 26
    x = _Axis(end_s)
    pieces = [
        f'<svg viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" aria-label="timeline of {escape(stage.title)}">',
        *(_round(done, x) for done in stage.rounds),
        _grid(x, end_s, height),
        *_latencies(stage, x),
        *_failures(stage, x),
        *_waiting(stage, x),
        *_lives(stage, names, x, end_s),
        *_struck(stage, names, x),
        "</svg>",
    ]
    return "".join(pieces)


class _Axis:
    """Seconds to pixels."""

    def __init__(self, end_s: float) -> None:
        self.end_s = end_s
        self._scale = (_WIDTH - _LEFT - _RIGHT) / end_s

    def __call__(self, at_s: float) -> float:
        return _LEFT + min(max(at_s, 0.0), self.end_s) * self._scale


def _round(done: Round, x: _Axis) -> str:
    left, right = x(done.from_s), x(done.to_s)
    lines = [
        (
            f'<rect class="band" x="{left + 0.5:.1f}" y="{_BANDS_TOP}" width="{max(right - left - 1, 1):.1f}" '
            f'height="{_WAITING_TOP + _WAITING_HEIGHT - _BANDS_TOP}"><title>{escape(_round_title(done))}</title></rect>'
        )
    ]
    # A name that is longer than its band would be read as its neighbour's.
    room = int((right - left - 6) / _LABEL_PX)
    if room >= 3:
        name = done.name if len(done.name) <= room else done.name[: room - 1] + "…"
        lines.append(f'<text class="name" x="{left + 4:.1f}" y="{_BANDS_TOP + 14}">{escape(name)}</text>')
    for band in done.bands:
        wide = x(band.to_s) - x(band.from_s)
        tip = f"<title>{band.from_s:.1f} s: {escape(done.name)} {escape(', '.join(band.targets))}</title>"
        if wide > 2:
            lines.append(
                f'<rect class="hold" x="{x(band.from_s):.1f}" y="{_BANDS_TOP + 22}" width="{wide:.1f}" '
                f'height="{_WAITING_TOP + _WAITING_HEIGHT - _BANDS_TOP - 22}">{tip}</rect>'
            )
        lines.append(
            f'<rect class="strike" x="{x(band.from_s) - 0.8:.1f}" y="{_BANDS_TOP + 22}" width="1.6" '
            f'height="{_BANDS_HEIGHT - 24}">{tip}</rect>'
        )
    return "".join(lines)


def _round_title(done: Round) -> str:
    what = "no fault" if done.fault is None else done.fault.title
    return f"{done.name}: {what}, {done.from_s:.0f} to {done.to_s:.0f} s"


def _grid(x: _Axis, end_s: float, height: float) -> str:
    lines = []
    for ms in _MS_TICKS:
        y = _latency_y(ms)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{ms} ms</text>')
    step_s = next((s for s in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600) if end_s / s <= 16), 1800)
    for index in range(int(end_s // step_s) + 1):
        at = x(index * step_s)
        lines.append(f'<text x="{at:.1f}" y="{height - 6:.0f}" text-anchor="middle">{index * step_s} s</text>')
    return "".join(lines)


def _latency_y(ms: float) -> float:
    share = math.log(max(ms, _LEAST_MS) / _LEAST_MS) / math.log(_MOST_MS / _LEAST_MS)
    return _LATENCY_TOP + _LATENCY_HEIGHT * (1 - min(share, 1.0))


def _latencies(stage: Stage, x: _Axis) -> list[str]:
    found = bins(stage.samples, _BIN_S)
    return [
        _line(kind, [(x(b.at_s + _BIN_S / 2), _latency_y(getattr(b, f"{kind}_ms"))) for b in found if b.answered])
        for kind in ("p99", "p50")
    ]


def _line(kind: str, points: Sequence[tuple[float, float]]) -> str:
    return f'<polyline class="{kind}" points="{" ".join(f"{left:.1f},{top:.1f}" for left, top in points)}"/>'


def _failures(stage: Stage, x: _Axis) -> list[str]:
    """Draw a bar for each quarter of a second that had failures or second attempts."""
    found = bins(stage.samples, _BIN_S)
    most = max((max(b.failed, b.retried) for b in found), default=0)
    lines = [f'<text x="{_LEFT - 6}" y="{_FAILED_TOP + 12}" text-anchor="end">failed,</text>']
    lines.append(f'<text x="{_LEFT - 6}" y="{_FAILED_TOP + 25}" text-anchor="end">sent again</text>')
    wide = max(x(_BIN_S) - x(0), 1.5)
    for b in found:
        for kind, count in (("retried", b.retried), ("failed", b.failed)):
            if count:
                # By the root: one failure must still be seen beside a hundred.
                tall = max(_FAILED_HEIGHT * math.sqrt(count / most), 3.0)
                lines.append(
                    f'<rect class="{kind}" x="{x(b.at_s):.1f}" y="{_FAILED_TOP + _FAILED_HEIGHT - tall:.1f}" '
                    f'width="{wide:.1f}" height="{tall:.1f}"><title>{b.at_s:.1f} s: {count} {kind}</title></rect>'
                )
    return lines


def _waiting(stage: Stage, x: _Axis) -> list[str]:
    most = max((m.waiting for m in stage.measures if m.waiting is not None), default=0)
    bottom = _WAITING_TOP + _WAITING_HEIGHT
    # Where a replica could not be asked, nothing is drawn.
    lines: list[list[tuple[float, float]]] = [[]]
    for m in stage.measures:
        if m.waiting is None:
            lines.append([])
        else:
            lines[-1].append((x(m.at_s), bottom - _WAITING_HEIGHT * m.waiting / max(most, 1)))
    return [
        *(_line("wait", points) for points in lines if points),
        f'<text x="{_LEFT - 6}" y="{_WAITING_TOP + 10}" text-anchor="end">{most:,}</text>',
        f'<text x="{_LEFT - 6}" y="{bottom - 16}" text-anchor="end">events not</text>',
        f'<text x="{_LEFT - 6}" y="{bottom - 3}" text-anchor="end">archived</text>',
    ]


def _lives(stage: Stage, names: Sequence[str], x: _Axis, end_s: float) -> list[str]:
    """Draw one lane for each part: when it was ready, and when not."""
    lines = []
    for index, name in enumerate(names):
        top = _PARTS_TOP + index * _PART_HEIGHT
        lines.append(f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end">{escape(name)}</text>')
        changes = [change for change in stage.seen if change.name == name]
        for change, following in zip(changes, [*changes[1:], None], strict=False):
            until_s = end_s if following is None else following.at_s
            kind = "up" if change.state == "ready" else "away"
            wide = max(x(until_s) - x(change.at_s), 1.0)
            tip = f"{name} {change.state} from {change.at_s:.1f} s, started again {change.restarts} times"
            lines.append(
                f'<rect class="{kind}" x="{x(change.at_s):.1f}" y="{top + 1:.1f}" width="{wide:.1f}" '
                f'height="{_PART_HEIGHT - 5}"><title>{escape(tip)}</title></rect>'
            )
        for before, after in pairwise(changes):
            # A part may be back before anybody saw it away.
            if after.restarts > before.restarts:
                left = x(after.at_s)
                lines.append(
                    f'<line class="start" x1="{left:.1f}" x2="{left:.1f}" y1="{top:.1f}" y2="{top + 13:.1f}"/>'
                )
    return lines


def _part_of(target: str) -> str:
    """Return the part that a target is, or is one process of."""
    return target.partition("/")[0]


def _struck(stage: Stage, names: Sequence[str], x: _Axis) -> list[str]:
    """Mark in a part's lane each strike that it was struck by, and how long that held."""
    lines = []
    for done in stage.rounds:
        for band in done.bands:
            for target in band.targets:
                top = _PARTS_TOP + names.index(_part_of(target)) * _PART_HEIGHT
                left, wide = x(band.from_s), x(band.to_s) - x(band.from_s)
                tip = f"<title>{band.from_s:.1f} s: {escape(done.name)} struck {escape(target)}</title>"
                if wide > 2:
                    lines.append(
                        f'<rect class="lane" x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" '
                        f'height="{_PART_HEIGHT - 3}">{tip}</rect>'
                    )
                lines.append(f'<path class="struck" d="M{left:.1f} {top + 11:.1f}l-4.5 -10h9z">{tip}</path>')
    return lines
