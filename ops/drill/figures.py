"""The figures of a round, from samples; pure.

The invariant: under a promise of so many retries, a request that needed more of them failed, even if it was answered.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ops.drill.drill_load import Sample
from ops.drill.faults.promise import Promise
from ops.drill.witness import REFUSED
from ops.load.summary import Histogram


@dataclass(frozen=True)
class Answers:
    """What became of a round's requests; see `Figures` for the names."""

    requests: int
    failures: dict[str, int]
    raw_failed: int
    refused: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    list_p99_ms: float | None
    list_max_ms: float | None
    last_refused_s: float | None


def answers(samples: Iterable[Sample], promise: Promise) -> Answers:
    """Fold samples up under a promise."""
    failures: Counter[str] = Counter()
    everything, lists = Histogram(), Histogram()
    requests = raw_failed = refused = 0
    last_refused_s: float | None = None
    for sample in samples:
        requests += 1
        raw_failed += sample.failure is not None or sample.attempts > 1
        # A client with fewer retries would have ended with what made the one too many necessary.
        failure = sample.retry_cause if sample.attempts > promise.retries + 1 else sample.failure
        if failure == REFUSED and promise.refusals:
            refused += 1
            last_refused_s = max(last_refused_s or 0.0, sample.at_s)
        elif failure is not None:
            failures[failure] += 1
        else:
            everything.add(sample.latency_s)
            if sample.kind == "recommend":
                lists.add(sample.latency_s)
    return Answers(
        requests,
        dict(failures),
        raw_failed,
        refused,
        _ms(everything.percentile_s(0.5)),
        _ms(everything.percentile_s(0.99)),
        _ms(everything.max_s if everything.count else None),
        _ms(lists.percentile_s(0.99)),
        _ms(lists.max_s if lists.count else None),
        last_refused_s,
    )


@dataclass(frozen=True)
class Bin:
    """The requests of a short span of time; the percentiles are those of its good answers, 0 if it had none."""

    at_s: float
    answered: int
    failed: int
    retried: int
    p50_ms: float
    p99_ms: float


def bins(samples: Iterable[Sample], width_s: float) -> list[Bin]:
    """Cut samples into spans of equal width, in order of time; a span without a request gives none."""
    spans: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        spans[int(sample.at_s // width_s)].append(sample)
    found = []
    for index, group in sorted(spans.items()):
        good_ms = sorted(sample.latency_s * 1e3 for sample in group if sample.failure is None)
        found.append(
            Bin(
                at_s=index * width_s,
                answered=len(good_ms),
                failed=len(group) - len(good_ms),
                retried=sum(1 for sample in group if sample.attempts > 1),
                p50_ms=good_ms[len(good_ms) // 2] if good_ms else 0.0,
                p99_ms=good_ms[math.ceil(0.99 * len(good_ms)) - 1] if good_ms else 0.0,
            )
        )
    return found


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 2)
