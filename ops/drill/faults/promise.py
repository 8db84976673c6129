"""What is promised while a fault is on, and whether the figures keep it; pure.

The invariant: a figure that was not taken is never a kept promise; it is named in the notes. Times are not judged on a
machine whose load average says that they belong to somebody else, and then the notes say so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

# Fewer requests than this have no 99th percentile to speak of.
LEAST_FOR_P99 = 1000
# On a shared machine the 99th percentile of a few thousand answers moves by more than a tenth by itself.
GROWTH_FLOOR_MS = 10.0


@dataclass(frozen=True, kw_only=True)
class Promise:
    """The limits of one row of docs/promises.md; None is no limit.

    Nothing acknowledged may ever be lost, doubled or altered, so that is no field.

    Attributes:
        text: The row's promise, in words.
        retries: How often the client may send a request again; with so many none may fail.
        raw_share: The largest share of requests that a client without retries may lose.
        refusals: Whether feedback may be refused, with Retry-After.
        p99_ms: Of all answers.
        list_max_ms: Of lists.
        p99_growth: Of lists, as a share of the quiet round's.
        ready_s: How soon a killed part is ready again.
        caught_up_s: How soon after the fault's end no more events wait than three seconds bring.
        drain_times: With a fault that stays, how many times faster than they arrive the events that waited go out; the
            time that this takes is added to caught_up_s.
        taken_again_s: How soon after the fault's end feedback is no longer refused.
    """

    text: str
    retries: int = 1
    raw_share: float | None = None
    refusals: bool = False
    p99_ms: float | None = None
    list_max_ms: float | None = None
    p99_growth: float | None = None
    ready_s: float | None = None
    caught_up_s: float | None = None
    drain_times: float = math.inf
    taken_again_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured in one round; a time that could not be taken is None.

    Attributes:
        strikes: How often the fault was really done.
        held_s: The longest time that it stayed.
        requests: Sent while the round lasted.
        failures: Of those, by cause, under the promise's number of retries.
        raw_failed: Requests whose first attempt was not enough.
        refused: Feedback that was refused as promised.
        lost: Acknowledged events and answered lists that the archive lacks.
        doubled: Those that it has twice.
        altered: Those whose content is not what was sent.
        p50_ms: Of all good answers, as p99_ms and max_ms.
        list_p99_ms: Of good lists only, as list_max_ms.
        ready_s: The longest time from a kill until the part was ready again.
        caught_up_s: From the fault's end until no more events waited than three seconds bring.
        taken_again_s: From the fault's end to the last refusal; 0 if there was none after it.
        load: The highest load average over one minute that was seen.
        complaints: What the fault itself found wrong, one sentence each.
    """

    strikes: int = 0
    held_s: float = 0.0
    requests: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    raw_failed: int = 0
    refused: int = 0
    lost: int = 0
    doubled: int = 0
    altered: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    list_p99_ms: float | None = None
    list_max_ms: float | None = None
    ready_s: float | None = None
    caught_up_s: float | None = None
    taken_again_s: float | None = None
    load: float = 0.0
    complaints: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """Requests that failed, whatever the cause."""
        return sum(self.failures.values())


@dataclass(frozen=True)
class Judgement:
    """One sentence per broken promise, and per thing that could not be judged."""

    breaches: tuple[str, ...]
    notes: tuple[str, ...]


def judge(promise: Promise, figures: Figures, quiet_p99_ms: float | None, cores: int) -> Judgement:
    """Compare what was measured with what was promised.

    Args:
        promise: The limits.
        figures: The round's.
        quiet_p99_ms: The 99th percentile of lists in the round without a fault, None if it was not taken.
        cores: Of the machine; times are judged up to a load average of one more.
    """
    breaches = list(figures.complaints)
    notes: list[str] = []
    for count, what in (
        (figures.lost, "acknowledged events or answered lists are not in the archive"),
        (figures.doubled, "are in the archive more than once"),
        (figures.altered, "are in the archive with other content than was sent"),
    ):
        if count:
            breaches.append(f"{count} {what}")
    if figures.failed:
        causes = ", ".join(f"{cause} {count}" for cause, count in sorted(figures.failures.items()))
        breaches.append(f"{figures.failed} of {figures.requests} requests failed ({causes})")
    # A whole request: of fewer than the share's denominator one may still be lost.
    if promise.raw_share is not None and figures.raw_failed > math.ceil(promise.raw_share * figures.requests):
        breaches.append(
            f"{figures.raw_failed} of {figures.requests} requests would have failed without a retry, "
            f"{promise.raw_share:.2%} are allowed"
        )
    if promise.refusals and figures.strikes and not figures.refused:
        notes.append("no feedback was refused: the fault was not felt, or one retry was enough")
    times = _late(promise, figures, quiet_p99_ms, notes)
    if figures.load > cores + 1:
        why = f"not judged at a load average of {figures.load:.1f} on {cores} cores"
        notes += [f"{why}: {sentence}" for sentence in times]
    else:
        breaches += times
    return Judgement(tuple(breaches), tuple(notes))


def _late(promise: Promise, figures: Figures, quiet_p99_ms: float | None, notes: list[str]) -> list[str]:
    """Return one sentence per time over its limit, and note the times that are missing."""
    growth_limit_ms: float | None = None
    if promise.p99_growth is not None and quiet_p99_ms is not None:
        growth_limit_ms = quiet_p99_ms + max(promise.p99_growth * quiet_p99_ms, GROWTH_FLOOR_MS)
    elif promise.p99_growth is not None:
        notes.append("the 99th percentile has no quiet round to be compared with")
    p99_limit_ms = promise.p99_ms
    if figures.requests < LEAST_FOR_P99 and (p99_limit_ms is not None or growth_limit_ms is not None):
        notes.append(f"{figures.requests} requests are too few for their 99th percentile to be judged")
        p99_limit_ms = growth_limit_ms = None
    caught_up_s = promise.caught_up_s
    if caught_up_s is not None:
        # Events go on arriving while those that waited go out.
        caught_up_s += figures.held_s / (promise.drain_times - 1)
    checks = (
        ("the 99th percentile", figures.p99_ms, p99_limit_ms, "ms"),
        ("the slowest list", figures.list_max_ms, promise.list_max_ms, "ms"),
        ("the lists' 99th percentile", figures.list_p99_ms, growth_limit_ms, "ms"),
        ("the slowest restart", figures.ready_s, promise.ready_s, "s"),
        ("catching up", figures.caught_up_s, caught_up_s, "s"),
        ("taking feedback again", figures.taken_again_s, promise.taken_again_s, "s"),
    )
    late: list[str] = []
    for what, measured, limit, unit in checks:
        if limit is None:
            continue
        if measured is None:
            notes.append(f"{what} was not measured")
        elif measured > limit:
            late.append(f"{what} took {measured:.4g} {unit}, {limit:.4g} {unit} are promised")
    return late
