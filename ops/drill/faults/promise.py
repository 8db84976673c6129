"""The promise of a fault, and the assessment of a round's figures against it; pure.

Invariant: a figure that was not measured never counts as kept; the notes name it. Times are not assessed while the load
average shows that the machine is busy with other work, and the notes say so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

# With fewer requests the 99th percentile is too uncertain.
MIN_REQUESTS_FOR_P99 = 1000
# On a shared machine the 99th percentile of a few thousand answers varies by more than a tenth.
GROWTH_FLOOR_MS = 10.0


@dataclass(frozen=True, kw_only=True)
class Promise:
    """The limits of one row of docs/promises.md; None is no limit.

    Nothing acknowledged may ever be lost, duplicated or altered, so that is no field.

    Attributes:
        text: The promise in words.
        retries: Number of retries with which no request may fail.
        raw_share: The largest share of raw failures.
        refusals: Whether feedback may be refused with Retry-After.
        p99_ms: Of all answers.
        list_max_ms: Of lists.
        p99_growth: Of lists, as a share of the quiet round's.
        ready_s: From a kill until the part is ready again.
        caught_up_s: From the fault's end until the backlog is at most what arrives in three seconds.
        drain_factor: The rate at which the backlog of a lasting fault drains, as a multiple of the arrival rate. The
            time for this is added to caught_up_s.
        accepted_again_s: From the fault's end until feedback is no longer refused.
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
    drain_factor: float = math.inf
    accepted_again_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The measurements of one round; a time that was not measured is None.

    Attributes:
        injections: Injections that reached a target.
        held_s: The longest duration of an injection.
        requests: Sent during the round.
        failures: Of those, by cause, with the promise's number of retries.
        raw_failed: Raw failures.
        refused: Feedback refused as promised.
        lost: Acknowledged events and answered lists that the archive lacks.
        duplicated: Those that it has more than once.
        altered: Those with other content.
        p50_ms: Of all good answers, as p99_ms and max_ms.
        list_p99_ms: Of good lists only, as list_max_ms.
        ready_s: The longest time from a kill until the part was ready again.
        caught_up_s: From the fault's end until the backlog was at most what arrives in three seconds.
        accepted_again_s: From the fault's end to the last refusal; 0 if there was none after it.
        load: The highest load average over one minute.
        problems: Problems that the fault itself observed, one clause each.
    """

    injections: int = 0
    held_s: float = 0.0
    requests: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    raw_failed: int = 0
    refused: int = 0
    lost: int = 0
    duplicated: int = 0
    altered: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    list_p99_ms: float | None = None
    list_max_ms: float | None = None
    ready_s: float | None = None
    caught_up_s: float | None = None
    accepted_again_s: float | None = None
    load: float = 0.0
    problems: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """Requests that failed, whatever the cause."""
        return sum(self.failures.values())


@dataclass(frozen=True)
class Assessment:
    """One clause for each broken promise, and for each that could not be assessed."""

    breaches: tuple[str, ...]
    notes: tuple[str, ...]


def assess(promise: Promise, figures: Figures, quiet_p99_ms: float | None, cores: int) -> Assessment:
    """Compare the figures of a round with a promise.

    `quiet_p99_ms` is the 99th percentile of lists in the quiet round, or None. Times are assessed up to a load average
    of one more than the machine's cores.
    """
    breaches = list(figures.problems)
    notes: list[str] = []
    for count, what in (
        (figures.lost, "acknowledged events or answered lists are not in the archive"),
        (figures.duplicated, "are in the archive more than once"),
        (figures.altered, "are in the archive with other content than was sent"),
    ):
        if count:
            breaches.append(f"{count} {what}")
    if figures.failed:
        causes = ", ".join(f"{cause} {count}" for cause, count in sorted(figures.failures.items()))
        breaches.append(f"{figures.failed} of {figures.requests} requests failed ({causes})")
    # Rounded up to a whole request.
    if promise.raw_share is not None and figures.raw_failed > math.ceil(promise.raw_share * figures.requests):
        breaches.append(
            f"{figures.raw_failed} of {figures.requests} requests would have failed without a retry, "
            f"{promise.raw_share:.2%} are allowed"
        )
    if promise.refusals and figures.injections and not figures.refused:
        notes.append("no feedback was refused: the fault had no effect, or one retry was enough")
    times = _late(promise, figures, quiet_p99_ms, notes)
    if figures.load > cores + 1:
        why = f"not assessed at a load average of {figures.load:.1f} on {cores} cores"
        notes += [f"{why}: {sentence}" for sentence in times]
    else:
        breaches += times
    return Assessment(tuple(breaches), tuple(notes))


def _late(promise: Promise, figures: Figures, quiet_p99_ms: float | None, notes: list[str]) -> list[str]:
    """Return one clause for each time over its limit, and add a note for each missing time."""
    growth_limit_ms: float | None = None
    if promise.p99_growth is not None and quiet_p99_ms is not None:
        growth_limit_ms = quiet_p99_ms + max(promise.p99_growth * quiet_p99_ms, GROWTH_FLOOR_MS)
    elif promise.p99_growth is not None:
        notes.append("the 99th percentile cannot be compared with that of a quiet round")
    p99_limit_ms = promise.p99_ms
    if figures.requests < MIN_REQUESTS_FOR_P99 and (p99_limit_ms is not None or growth_limit_ms is not None):
        notes.append(f"{figures.requests} requests are too few to assess their 99th percentile")
        p99_limit_ms = growth_limit_ms = None
    caught_up_s = promise.caught_up_s
    if caught_up_s is not None:
        # Events arrive while the backlog drains.
        caught_up_s += figures.held_s / (promise.drain_factor - 1)
    checks = (
        ("the 99th percentile", figures.p99_ms, p99_limit_ms, "ms"),
        ("the slowest list", figures.list_max_ms, promise.list_max_ms, "ms"),
        ("the lists' 99th percentile", figures.list_p99_ms, growth_limit_ms, "ms"),
        ("the slowest restart", figures.ready_s, promise.ready_s, "s"),
        ("catching up", figures.caught_up_s, caught_up_s, "s"),
        ("accepting feedback again", figures.accepted_again_s, promise.accepted_again_s, "s"),
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
