from ops.drill.drill_load import Sample
from ops.drill.faults.promise import Promise
from ops.drill.figures import answers, bins
from ops.drill.system import Death
from ops.drill.system_watch import Measure, Seen, caught_up_s, slowest_return_s

_SAMPLES = [
    Sample(0.1, 0.010, "recommend", 1, None, None),
    Sample(0.2, 0.020, "recommend", 2, "eof", None),
    Sample(0.3, 0.030, "feedback", 3, "reset", None),
    Sample(0.4, 2.000, "recommend", 1, None, "timeout"),
    Sample(0.5, 0.040, "feedback", 3, "refused", "timeout"),
]


def test_one_run_tells_what_clients_with_fewer_retries_would_have_seen() -> None:
    """A request that needed more attempts than a promise allows failed under that promise."""
    by_retries = {n: answers(_SAMPLES, Promise(text="", retries=n)) for n in (0, 1, 2)}
    assert by_retries[2].failures == {"timeout": 2}
    assert by_retries[1].failures == {"timeout": 1, "refused": 1, "reset": 1}
    assert by_retries[0].failures == {"timeout": 1, "refused": 1, "reset": 1, "eof": 1}
    assert {found.raw_failed for found in by_retries.values()} == {4}
    assert {found.requests for found in by_retries.values()} == {5}


def test_a_refusal_is_a_failure_unless_it_is_promised() -> None:
    """A client with one retry would have been refused, so that it tried once more in vain counts for nothing."""
    found = answers(_SAMPLES, Promise(text="", refusals=True))
    assert found.failures == {"timeout": 1, "reset": 1}
    assert (found.refused, found.last_refused_s) == (1, 0.5)


def test_latencies_are_those_of_good_answers() -> None:
    """A time-out or a quick refusal must not look like a slow or a quick answer."""
    found = answers(_SAMPLES, Promise(text=""))
    assert found.max_ms == found.list_max_ms == 20.0
    assert answers(_SAMPLES, Promise(text="", retries=2)).max_ms == 30.0
    assert found.list_p99_ms is not None
    assert 20.0 <= found.list_p99_ms <= 20.1
    empty = answers([], Promise(text=""))
    assert (empty.requests, empty.p50_ms, empty.p99_ms, empty.max_ms) == (0, None, None, None)


def test_bins_hold_every_request_once() -> None:
    """At the time that it was meant to be sent."""
    found = bins(_SAMPLES, 0.25)
    counts = [(b.at_s, b.answered, b.failed, b.retried) for b in found]
    assert counts == [(0.0, 2, 0, 1), (0.25, 1, 1, 1), (0.5, 0, 1, 1)]
    assert (found[0].p50_ms, found[0].p99_ms) == (20.0, 20.0)


def test_the_slowest_return_counts_from_the_last_kill() -> None:
    """A part killed again before it was ready is not late; one that never came back has no time."""
    seen = [
        Seen(0.0, "a", "ready", 1, 0),
        Seen(1.1, "a", "starting", 2, 1),
        Seen(3.1, "a", "starting", 3, 2),
        Seen(4.0, "a", "ready", 3, 2),
        Seen(5.5, "b", "ready", 9, 1),
    ]
    deaths = [Death(101.0, "a", 1), Death(103.0, "a", 2), Death(105.25, "b", 8), Death(106.0, "c", 7)]
    assert slowest_return_s(deaths, seen, 100.0) == 1.0
    assert slowest_return_s(deaths[2:], seen, 100.0) == 0.25
    assert slowest_return_s(deaths[3:], seen, 100.0) is None


def test_caught_up_is_the_first_time_that_few_enough_wait() -> None:
    """After the fault's end; a time at which nobody knows how many waited proves nothing."""
    measures = [Measure(1.0, 5, 0.0), Measure(2.0, None, 0.0), Measure(2.5, 900, 0.0), Measure(3.0, 90, 0.0)]
    assert caught_up_s(measures, 2.0, 100) == 1.0
    assert caught_up_s(measures, 3.5, 100) is None
