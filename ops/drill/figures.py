"""The figures of a round, from samples; pure.

Invariant: under a promise of N retries, a request that needed more of them failed, even if it was answered.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ops.drill.drill_load import RequestSample
from ops.drill.faults.promise import Figures, Promise
from ops.drill.observed_traffic import REFUSED
from ops.load.summary import Histogram


def answer_figures(samples: Iterable[RequestSample], promise: Promise, ended_s: float = 0.0) -> Figures:
    """Return the figures that follow from requests alone, under a promise; `ended_s` is the end of the fault."""
    failures: Counter[str] = Counter()
    answers, lists = Histogram(), Histogram()
    requests = raw_failed = refused = 0
    last_refused_s: float | None = None
    for sample in samples:
        requests += 1
        raw_failed += sample.failure is not None or sample.attempts > 1
        # A client with fewer retries would have failed with the cause of the first retry too many.
        failure = sample.retry_cause if sample.attempts > promise.retries + 1 else sample.failure
        if failure == REFUSED and promise.refusals:
            refused += 1
            last_refused_s = max(last_refused_s or 0.0, sample.at_s)
        elif failure is not None:
            failures[failure] += 1
        else:
            answers.add(sample.latency_s)
            if sample.kind == "recommend":
                lists.add(sample.latency_s)
    return Figures(
        requests=requests,
        failures=dict(failures),
        raw_failed=raw_failed,
        refused=refused,
        p50_ms=_ms(answers.percentile_s(0.5)),
        p99_ms=_ms(answers.percentile_s(0.99)),
        max_ms=_ms(answers.max_s if answers.count else None),
        list_p99_ms=_ms(lists.percentile_s(0.99)),
        list_max_ms=_ms(lists.max_s if lists.count else None),
        accepted_again_s=0.0 if last_refused_s is None else max(0.0, last_refused_s - ended_s),
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


def bins(samples: Iterable[RequestSample], width_s: float) -> list[Bin]:
    """Divide samples into spans of equal width, in order of time; a span without a request is left out."""
    spans: dict[int, list[RequestSample]] = defaultdict(list)
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
