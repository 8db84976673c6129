"""The timeline of a drilled installation: rounds, injections, latencies, failures, events not archived, parts; pure."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from ops.drill.figures import bins
from ops.drill.stage import DrillRound, Stage
from ops.pages.axis import Axis, Scale
from ops.pages.drawing import Drawing, Key, Shape, label, line, path, polyline, rect

_WIDTH, _LEFT, _RIGHT = 1180.0, 96.0, 12.0
_BANDS_TOP, _BANDS_HEIGHT = 8.0, 44.0
_LATENCY_TOP, _LATENCY_HEIGHT = 66.0, 190.0
_FAILED_TOP, _FAILED_HEIGHT = 270.0, 34.0
_WAITING_TOP, _WAITING_BOTTOM = 318.0, 398.0
_PARTS_TOP, _PART_HEIGHT = 412.0, 16.0
_BIN_S = 0.25
_MS_TICKS = (1, 10, 100, 1000)
_LATENCY_Y: Final = Axis("latency, ms", 0.5, 2500.0, log=True).scale(_LATENCY_TOP + _LATENCY_HEIGHT, _LATENCY_TOP)
_LETTER_PX = 6.2
# A shorter injection is drawn as a line only.
_MIN_BAND_PX = 2.0

LEGEND: Final = [
    Key(name, rect(f"swatch {kind}", 1, 1, 12, 12))
    for kind, name in (
        ("p50", "p50"),
        ("p99", "p99, ms, per 250 ms; lower is better"),
        ("failed", "failed requests; a part that is not ready"),
        ("injection", "an injected fault, also in the lane of its target; requests sent again"),
        ("wait", "events not yet archived; fewer is better"),
        ("start", "a part was started again"),
    )
]


def timeline(stage: Stage) -> Drawing:
    """Return the timeline of one installation."""
    end_s = max((done.to_s for done in stage.rounds), default=1.0)
    x = Axis("time, s", 0.0, end_s).scale(_LEFT, _WIDTH - _RIGHT)
    targets = {
        _part_of(target) for done in stage.rounds for injection in done.injections for target in injection.targets
    }
    parts = sorted({change.name for change in stage.changes} | targets)
    height = _PARTS_TOP + _PART_HEIGHT * len(parts) + 26
    shapes = [shape for done in stage.rounds for shape in _round(done, x)]
    shapes += [*_grid(x, end_s, height), *_latencies(stage, x), *_failures(stage, x), *_waiting(stage, x)]
    shapes += [*_lanes(stage, parts, x, end_s), *_target_lanes(stage, parts, x)]
    return Drawing(f"timeline of {stage.title}", _WIDTH, height, shapes)


def _round(done: DrillRound, x: Scale) -> Iterator[Shape]:
    left, right = x(done.from_s), x(done.to_s)
    title = "no fault" if done.fault is None else done.fault.title
    tip = f"{done.name}: {title}, {done.from_s:.0f} to {done.to_s:.0f} s"
    yield rect("band", left + 0.5, _BANDS_TOP, max(right - left - 1, 1), _WAITING_BOTTOM - _BANDS_TOP, tip)
    # A name longer than its band would run into the next one.
    room = int((right - left - 6) / _LETTER_PX)
    if room >= 3:
        name = done.name if len(done.name) <= room else done.name[: room - 1] + "…"
        yield label(name, left + 4, _BANDS_TOP + 14, kind="name")
    top = _BANDS_TOP + 22
    for injection in done.injections:
        begin, width = x(injection.from_s), x(injection.to_s) - x(injection.from_s)
        tip = f"{injection.from_s:.1f} s: {done.name} {', '.join(injection.targets)}"
        if width > _MIN_BAND_PX:
            yield rect("injection hold", begin, top, width, _WAITING_BOTTOM - top, tip)
        yield rect("injection", begin - 0.8, top, 1.6, _BANDS_HEIGHT - 24, tip)


def _grid(x: Scale, end_s: float, height: float) -> Iterator[Shape]:
    for ms in _MS_TICKS:
        y = _LATENCY_Y(ms)
        yield line("grid", _LEFT, y, _WIDTH - _RIGHT, y)
        yield _side_label(f"{ms} ms", y + 4)
    step_s = next((s for s in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600) if end_s / s <= 16), 1800)
    for at_s in range(0, int(end_s) + 1, step_s):
        yield label(f"{at_s} s", x(at_s), height - 6, "middle")


def _side_label(text: str, y: float) -> Shape:
    return label(text, _LEFT - 6, y, "end")


def _latencies(stage: Stage, x: Scale) -> Iterator[Shape]:
    answered = [b for b in bins(stage.samples, _BIN_S) if b.answered]
    yield polyline("line p99", [(x(b.at_s + _BIN_S / 2), _LATENCY_Y(b.p99_ms)) for b in answered])
    yield polyline("line p50", [(x(b.at_s + _BIN_S / 2), _LATENCY_Y(b.p50_ms)) for b in answered])


def _failures(stage: Stage, x: Scale) -> Iterator[Shape]:
    """Yield a bar for each bin with failures or second attempts."""
    found = bins(stage.samples, _BIN_S)
    highest = max((max(b.failed, b.retried) for b in found), default=0)
    yield _side_label("failed,", _FAILED_TOP + 12)
    yield _side_label("sent again", _FAILED_TOP + 25)
    width = max(x(_BIN_S) - x(0), 1.5)
    for b in found:
        for kind, count in (("retried", b.retried), ("failed", b.failed)):
            if count:
                # Scaled by the square root: one failure must be visible beside a hundred.
                tall = max(_FAILED_HEIGHT * math.sqrt(count / highest), 3.0)
                top = _FAILED_TOP + _FAILED_HEIGHT - tall
                yield rect(kind, x(b.at_s), top, width, tall, f"{b.at_s:.1f} s: {count} {kind}")


def _waiting(stage: Stage, x: Scale) -> Iterator[Shape]:
    highest = max((m.waiting for m in stage.backlog if m.waiting is not None), default=0)
    # The line breaks where a replica did not answer.
    runs: list[list[tuple[float, float]]] = [[]]
    for m in stage.backlog:
        if m.waiting is None:
            runs.append([])
        else:
            height = (_WAITING_BOTTOM - _WAITING_TOP) * m.waiting / max(highest, 1)
            runs[-1].append((x(m.at_s), _WAITING_BOTTOM - height))
    yield from (polyline("line wait", points) for points in runs if points)
    yield _side_label(f"{highest:,}", _WAITING_TOP + 10)
    yield _side_label("events not", _WAITING_BOTTOM - 16)
    yield _side_label("archived", _WAITING_BOTTOM - 3)


def _lanes(stage: Stage, parts: Sequence[str], x: Scale, end_s: float) -> Iterator[Shape]:
    """Yield one lane for each part: when it was ready, when not, and its starts."""
    for index, part in enumerate(parts):
        top = _PARTS_TOP + index * _PART_HEIGHT
        yield _side_label(part, top + 10)
        changes = [change for change in stage.changes if change.name == part]
        ends_s = [*(change.at_s for change in changes[1:]), end_s]
        for change, until_s in zip(changes, ends_s, strict=False):
            left = x(change.at_s)
            tip = f"{part} {change.state} from {change.at_s:.1f} s, started again {change.restarts} times"
            kind = "up" if change.state == "ready" else "away"
            yield rect(kind, left, top + 1, max(x(until_s) - left, 1.0), _PART_HEIGHT - 5, tip)
        for before, after in pairwise(changes):
            # A part may be ready again before it is seen as not ready.
            if after.restarts > before.restarts:
                yield line("start", x(after.at_s), top, x(after.at_s), top + 13)


def _target_lanes(stage: Stage, parts: Sequence[str], x: Scale) -> Iterator[Shape]:
    """Yield each injection in the lanes of its targets, with its duration."""
    for done in stage.rounds:
        for injection in done.injections:
            for target in injection.targets:
                top = _PARTS_TOP + parts.index(_part_of(target)) * _PART_HEIGHT
                left, width = x(injection.from_s), x(injection.to_s) - x(injection.from_s)
                tip = f"{injection.from_s:.1f} s: {done.name} on {target}"
                if width > _MIN_BAND_PX:
                    yield rect("injection lane", left, top, width, _PART_HEIGHT - 3, tip)
                yield path("target", f"M{left:.1f} {top + 11:.1f}l-4.5 -10h9z", tip)


def _part_of(target: str) -> str:
    """Return the part of a target, which is a part or one of its processes."""
    return target.partition("/")[0]
