"""Outcomes folded into figures; pure.

Invariant: requests = answered + failed, in total and in every kind; the order of outcomes and the merging of parts do
not change the figures. A percentile exceeds the true one by less than 1/1024, and is never below it.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from ops.load.outcome import Kind, Outcome

_SUB_BITS = 11  # 2048 buckets per doubling's start; relative width below 1/1024


class Histogram:
    """Counts of durations in buckets of constant relative width, as in HdrHistogram, in whole microseconds."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.max_s = 0.0

    def add(self, duration_s: float) -> None:
        """Count one duration of 0 s or more."""
        self._counts[_bucket(math.ceil(duration_s * 1e6))] += 1
        self.count += 1
        self.max_s = max(self.max_s, duration_s)

    def merge(self, other: Self) -> None:
        """Add another histogram's counts to this one."""
        self._counts.update(other._counts)
        self.count += other.count
        self.max_s = max(self.max_s, other.max_s)

    def percentile_s(self, share: float) -> float | None:
        """Return the percentile of a share, above 0 and at most 1.

        Returns:
            Seconds, rounded up to the bucket's upper edge but not above the maximum; None if nothing was counted.
        """
        # 0.999 * 1000 is 999.0000000000001.
        rank = math.ceil(round(share * self.count, 6))
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                return min(_upper_edge(bucket) / 1e6, self.max_s)
        return None

    def count_within(self, limit_s: float) -> int:
        """Return the number of durations in buckets that end at or below `limit_s`."""
        return sum(n for bucket, n in self._counts.items() if min(_upper_edge(bucket) / 1e6, self.max_s) <= limit_s)


def _bucket(value_us: int) -> int:
    """Return the number of a value's bucket; buckets are in the order of their values."""
    shift = max(value_us.bit_length() - _SUB_BITS, 0)
    return (shift << _SUB_BITS) + (value_us >> shift)


def _upper_edge(bucket: int) -> int:
    """Return the greatest value of a bucket, in µs."""
    shift, base = bucket >> _SUB_BITS, bucket & ((1 << _SUB_BITS) - 1)
    return ((base + 1) << shift) - 1


@dataclass
class KindSummary:
    """The figures of one kind of request.

    Attributes:
        requests: Answered or failed.
        latency: Of good answers only: a refused connection is quick and must not count as a quick answer.
        failures: Failed requests by cause.
        examples: The first failure of each cause, in words.
        retries: Retried requests by cause.
        degradation_levels: Degraded but good answers by degradation level.
        shortfalls: Good lists with a stated shortfall.
        events: Feedback events accepted.
    """

    requests: int = 0
    latency: Histogram = field(default_factory=Histogram)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    retries: Counter[str] = field(default_factory=Counter)
    degradation_levels: Counter[str] = field(default_factory=Counter)
    shortfalls: int = 0
    events: int = 0

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return self.failures.total()

    def add(self, outcome: Outcome) -> None:
        """Fold one outcome in."""
        self.requests += 1
        if outcome.retry_cause is not None:
            self.retries[outcome.retry_cause] += 1
        if outcome.failure is not None:
            self.failures[outcome.failure] += 1
            self.examples.setdefault(outcome.failure, outcome.detail or outcome.failure)
            return
        self.latency.add(outcome.latency_s)
        self.shortfalls += outcome.shortfall
        self.events += outcome.events
        if outcome.degraded is not None:
            self.degradation_levels[outcome.degraded] += 1

    def merge(self, other: "KindSummary") -> None:
        """Fold another tally in."""
        self.requests += other.requests
        self.latency.merge(other.latency)
        self.failures.update(other.failures)
        self.examples = {**other.examples, **self.examples}
        self.retries.update(other.retries)
        self.degradation_levels.update(other.degradation_levels)
        self.shortfalls += other.shortfalls
        self.events += other.events


class Summary:
    """The figures of an attack."""

    def __init__(self) -> None:
        self.kinds: dict[Kind, KindSummary] = {}
        self.users: Counter[str] = Counter()
        self.lag = Histogram()

    def add(self, outcome: Outcome) -> None:
        """Fold one outcome in."""
        self.kinds.setdefault(outcome.kind, KindSummary()).add(outcome)
        self.users[outcome.user_class] += 1
        self.lag.add(outcome.lag_s)

    def merge(self, other: "Summary") -> None:
        """Fold another summary in."""
        for kind, tally in other.kinds.items():
            self.kinds.setdefault(kind, KindSummary()).merge(tally)
        self.users.update(other.users)
        self.lag.merge(other.lag)

    def total(self) -> KindSummary:
        """Return the figures over all kinds."""
        total = KindSummary()
        for kind in sorted(self.kinds):
            total.merge(self.kinds[kind])
        return total


@dataclass(frozen=True)
class LoadObjectives:
    """The objectives of a run; None for none.

    Attributes:
        p99_ms: At least 99 % of all requests must have a good answer within this time.
        max_failures: The most requests that may fail.
    """

    p99_ms: float | None = None
    max_failures: int | None = None

    def missed(self, summary: Summary) -> list[str]:
        """Return one sentence per objective that was missed."""
        total = summary.total()
        sentences: list[str] = []
        if self.p99_ms is not None:
            in_time = total.latency.count_within(self.p99_ms / 1e3)
            if total.requests == 0 or in_time < math.ceil(round(0.99 * total.requests, 6)):
                sentences.append(
                    f"The objective --p99-ms {self.p99_ms:g} was missed: {in_time} of {total.requests} requests were "
                    "answered in that time; the objective is 99 %."
                )
        if self.max_failures is not None and total.failed > self.max_failures:
            sentences.append(
                f"The objective --max-failures {self.max_failures} was missed: {total.failed} of {total.requests} "
                "requests failed."
            )
        return sentences
