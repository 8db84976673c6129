from ops.drill.drill_load import RequestSample
from ops.drill.faults.promise import Promise
from ops.drill.figures import answer_figures, bins
from ops.drill.system.drilled_system import KilledPart
from ops.drill.system.system_watch import BacklogSample, StateChange, catch_up_s, slowest_return_s

_SAMPLES = [
    RequestSample(0.1, 0.010, "recommend", 1, None, None),
    RequestSample(0.2, 0.020, "recommend", 2, "eof", None),
    RequestSample(0.3, 0.030, "feedback", 3, "reset", None),
    RequestSample(0.4, 2.000, "recommend", 1, None, "timeout"),
    RequestSample(0.5, 0.040, "feedback", 3, "refused", "timeout"),
]


def test_one_run_gives_the_failures_of_clients_with_fewer_retries() -> None:
    """A request that needed more retries than a promise allows failed under that promise."""
    by_retries = {n: answer_figures(_SAMPLES, Promise(text="", retries=n)) for n in (0, 1, 2)}
    assert by_retries[2].failures == {"timeout": 2}
    assert by_retries[1].failures == {"timeout": 1, "refused": 1, "reset": 1}
    assert by_retries[0].failures == {"timeout": 1, "refused": 1, "reset": 1, "eof": 1}
    assert {found.raw_failed for found in by_retries.values()} == {4}
    assert {found.requests for found in by_retries.values()} == {5}


def test_a_refusal_is_a_failure_unless_it_is_promised() -> None:
    """A client with one retry would have been refused, so its third attempt does not count."""
    found = answer_figures(_SAMPLES, Promise(text="", refusals=True))
    assert found.failures == {"timeout": 1, "reset": 1}
    assert (found.refused, found.accepted_again_s) == (1, 0.5)


def test_latencies_are_those_of_good_answers() -> None:
    """A time-out is no slow answer, and a refusal no fast one."""
    found = answer_figures(_SAMPLES, Promise(text=""))
    assert found.max_ms == found.list_max_ms == 20.0
    assert answer_figures(_SAMPLES, Promise(text="", retries=2)).max_ms == 30.0
    assert found.list_p99_ms is not None
    assert 20.0 <= found.list_p99_ms <= 20.1
    empty = answer_figures([], Promise(text=""))
    assert (empty.requests, empty.p50_ms, empty.p99_ms, empty.max_ms) == (0, None, None, None)


def test_bins_hold_every_request_once() -> None:
    """At its intended send time."""
    found = bins(_SAMPLES, 0.25)
    counts = [(b.at_s, b.answered, b.failed, b.retried) for b in found]
    assert counts == [(0.0, 2, 0, 1), (0.25, 1, 1, 1), (0.5, 0, 1, 1)]
    assert (found[0].p50_ms, found[0].p99_ms) == (20.0, 20.0)


def test_the_slowest_return_counts_from_the_last_kill() -> None:
    """A part that is killed again before it is ready counts from then; one that never returns has no time."""
    changes = [
        StateChange(0.0, "a", "ready", 1, 0),
        StateChange(1.1, "a", "starting", 2, 1),
        StateChange(3.1, "a", "starting", 3, 2),
        StateChange(4.0, "a", "ready", 3, 2),
        StateChange(5.5, "b", "ready", 9, 1),
    ]
    kills = [
        KilledPart(101.0, "a", 1),
        KilledPart(103.0, "a", 2),
        KilledPart(105.25, "b", 8),
        KilledPart(106.0, "c", 7),
    ]
    assert slowest_return_s(kills, changes, 100.0) == 1.0
    assert slowest_return_s(kills[2:], changes, 100.0) == 0.25
    assert slowest_return_s(kills[3:], changes, 100.0) is None


def test_the_catch_up_time_ends_when_few_events_wait() -> None:
    """After the end of the fault; a sample without a count proves nothing."""
    backlog = [
        BacklogSample(1.0, 5, 0.0),
        BacklogSample(2.0, None, 0.0),
        BacklogSample(2.5, 900, 0.0),
        BacklogSample(3.0, 90, 0.0),
    ]
    assert catch_up_s(backlog, 2.0, 100) == 1.0
    assert catch_up_s(backlog, 3.5, 100) is None
