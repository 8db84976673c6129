"""The figures of both shapes and the median of the pairs' ratios."""

from ops.benchmarks.installations import two_services
from ops.benchmarks.installations.halves import Half


def half(p50_ms: float, failed: int = 0) -> Half:
    failures = {"status 503": failed} if failed else {}
    return Half(p50_ms=p50_ms, p99_ms=4 * p50_ms, replica_ms=p50_ms / 2, requests=100, failures=failures)


def test_ratios_are_of_neighbouring_halves() -> None:
    """A slow pair says nothing about the shapes."""
    one, two = [half(1.0), half(8.0), half(1.0)], [half(2.0), half(12.0), half(3.0, failed=2)]
    found = two_services.Comparison({two_services.ONE: one, two_services.TWO: two})
    figures = found.figures()
    assert figures["ratios"] == {"p50_ms": 2.0, "p99_ms": 2.0, "replica_ms": 2.0}
    assert list(two_services.rows(figures)) == [
        ("one process", "1.00 ms", "4.00 ms", "0.50 ms", "0 of 300"),
        ("two services", "3.00 ms", "12.00 ms", "1.50 ms", "2 of 300"),
        ("median of the pairs' ratios", "2.00", "2.00", "2.00", ""),
    ]
