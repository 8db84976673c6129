import math
import random
from typing import Any

import pytest

from ops.load.outcome import Outcome
from ops.load.summary import Histogram, LoadObjectives, Summary


def _answered(latency_s: float, **more: Any) -> Outcome:
    fields: dict[str, Any] = {
        "kind": "recommend",
        "user_class": "known",
        "latency_s": latency_s,
        "lag_s": 0.0,
        "attempts": 1,
        "status": 200,
    }
    return Outcome(**(fields | more))


def _summary(*outcomes: Outcome) -> Summary:
    summary = Summary()
    for outcome in outcomes:
        summary.add(outcome)
    return summary


def test_percentiles_are_those_of_the_sorted_values_within_a_thousandth() -> None:
    """From below a microsecond to minutes, and never below the true value."""
    rng = random.Random(1)
    values = [10 ** rng.uniform(-7, 2) for _ in range(5000)]
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    values.sort()
    for share in (0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0):
        exact = values[math.ceil(share * len(values)) - 1]
        reported = histogram.percentile_s(share)
        assert reported is not None
        assert exact <= reported <= exact * (1 + 1 / 1024) + 1e-6


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([1.0], 0.5, 1.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([1.0, 2.0], 0.51, 2.0),
        ([0.001] * 99 + [1.0], 0.99, 0.001),
        ([0.001] * 98 + [1.0] * 2, 0.99, 1.0),
        ([0.001] * 999 + [1.0], 0.999, 0.001),
        ([0.0], 0.99, 0.0),
    ],
)
def test_percentile_is_the_nearest_rank(values: list[float], share: float, expected: float) -> None:
    """p99 of a hundred values is the 99th, not the 100th."""
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    assert histogram.percentile_s(share) == pytest.approx(expected, rel=1 / 1024)


def test_an_empty_histogram_has_no_percentiles() -> None:
    """Unknown is not 0."""
    assert Histogram().percentile_s(0.5) is None


def test_failures_are_counted_by_cause_and_leave_latency_alone() -> None:
    """A refused connection is quick and must not look like a quick answer."""
    summary = _summary(
        _answered(0.010),
        _answered(0.0001, failure="connect", status=None, detail="refused"),
        _answered(0.0001, failure="connect", status=None, detail="refused again"),
        _answered(2.0, failure="timeout", status=None, kind="feedback"),
    )
    total = summary.total()
    assert (total.requests, total.failed) == (4, 3)
    assert dict(total.failures) == {"connect": 2, "timeout": 1}
    assert total.examples == {"connect": "refused", "timeout": "timeout"}
    assert total.latency.count == 1
    assert total.latency.max_s == 0.010
    assert summary.kinds["feedback"].failed == 1


def test_merged_parts_equal_the_whole() -> None:
    """The figures of two generators add up."""
    rng = random.Random(2)
    outcomes = [
        _answered(
            rng.random(),
            kind=rng.choice(["recommend", "feedback"]),
            failure=rng.choice([None, None, "eof", "status_503"]),
            retry_cause=rng.choice([None, "reset"]),
            degraded=rng.choice([None, "static"]),
            shortfall=rng.random() < 0.5,
            events=rng.randrange(20),
            lag_s=rng.random() / 100,
        )
        for _ in range(500)
    ]
    whole, left, right = _summary(*outcomes), _summary(*outcomes[:200]), _summary(*outcomes[200:])
    left.merge(right)
    assert left.lag.percentile_s(0.99) == whole.lag.percentile_s(0.99)
    assert left.users == whole.users
    for merged, direct in ((left.total(), whole.total()), *((left.kinds[k], whole.kinds[k]) for k in whole.kinds)):
        assert (merged.requests, merged.failed, merged.shortfalls, merged.events) == (
            direct.requests,
            direct.failed,
            direct.shortfalls,
            direct.events,
        )
        assert (merged.failures, merged.retries) == (direct.failures, direct.retries)
        assert merged.degradation_levels == direct.degradation_levels
        assert merged.latency.percentile_s(0.9) == direct.latency.percentile_s(0.9)
        assert merged.latency.max_s == direct.latency.max_s


@pytest.mark.parametrize(
    ("slow", "failed", "p99_ms", "max_failures", "missed"),
    [
        (0, 0, 50, 0, []),
        (1, 0, 50, 0, []),
        (2, 0, 50, 0, ["--p99-ms"]),
        (0, 2, 50, 2, ["--p99-ms"]),
        (0, 1, 50, 0, ["--max-failures"]),
        (2, 1, 50, 0, ["--p99-ms", "--max-failures"]),
        (50, 50, None, None, []),
        (50, 50, None, 50, []),
    ],
)
def test_objectives_are_missed_in_words(
    slow: int, failed: int, p99_ms: float | None, max_failures: int | None, missed: list[str]
) -> None:
    """Of a hundred requests one may be late; a failed one was not in time, however quickly it failed."""
    outcomes = [_answered(0.2)] * slow + [_answered(0.001, failure="connect")] * failed
    outcomes += [_answered(0.001)] * (100 - len(outcomes))
    sentences = LoadObjectives(p99_ms, max_failures).missed(_summary(*outcomes))
    assert len(sentences) == len(missed)
    for sentence, option in zip(sentences, missed, strict=True):
        assert option in sentence


def test_no_requests_at_all_miss_a_latency_objective() -> None:
    """Nothing was fast."""
    assert LoadObjectives(p99_ms=1000.0).missed(Summary())
