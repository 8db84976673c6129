from typing import Any

import pytest

from ops.drill.faults.promise import Figures, Promise, judge

_PROMISE = Promise(
    text="all of it",
    raw_share=0.01,
    p99_ms=100,
    list_max_ms=600,
    p99_growth=0.10,
    ready_s=1.5,
    caught_up_s=10,
    taken_again_s=5,
)
_KEPT: dict[str, Any] = {
    "strikes": 3,
    "requests": 1000,
    "raw_failed": 10,
    "p50_ms": 3.0,
    "p99_ms": 100.0,
    "max_ms": 600.0,
    "list_p99_ms": 60.0,
    "list_max_ms": 600.0,
    "ready_s": 1.5,
    "caught_up_s": 10.0,
    "taken_again_s": 5.0,
    "load": 3.0,
}


def _judge(**changes: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    judged = judge(_PROMISE, Figures(**{**_KEPT, **changes}), 50.0, cores=2)
    return judged.breaches, judged.notes


def test_what_is_just_within_its_limits_is_kept() -> None:
    """Limits belong to what is allowed."""
    assert _judge() == ((), ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"failures": {"reset": 2, "eof": 1}}, "3 of 1000 requests failed (eof 1, reset 2)"),
        ({"raw_failed": 11}, "11 of 1000 requests would have failed without a retry"),
        ({"lost": 1}, "not in the archive"),
        ({"doubled": 1}, "more than once"),
        ({"altered": 1}, "other content"),
        ({"p99_ms": 100.1}, "the 99th percentile took 100.1 ms, 100 ms are promised"),
        ({"list_max_ms": 601.0}, "the slowest list took 601 ms"),
        ({"list_p99_ms": 60.1}, "the lists' 99th percentile took 60.1 ms, 60 ms are promised"),
        ({"ready_s": 1.6}, "the slowest restart took 1.6 s"),
        ({"caught_up_s": 11.0}, "catching up took 11 s"),
        ({"taken_again_s": 6.0}, "taking feedback again took 6 s"),
        ({"complaints": ("the takeover took 6.0 s",)}, "the takeover took 6.0 s"),
    ],
)
def test_every_broken_promise_is_a_breach(change: dict[str, Any], words: str) -> None:
    """One sentence each, and only that one."""
    breaches, _ = _judge(**change)
    assert len(breaches) == 1
    assert words in breaches[0]


def test_times_are_not_judged_on_a_busy_machine_but_losses_are() -> None:
    """Above a load average of cores + 1 a slow answer is a note; a lost event is a breach all the same."""
    breaches, notes = _judge(load=3.1, p99_ms=400.0, lost=2)
    assert breaches == ("2 acknowledged events or answered lists are not in the archive",)
    (note,) = notes
    assert "not judged at a load average of 3.1 on 2 cores" in note
    assert "400 ms" in note


def test_a_time_that_was_not_taken_is_no_kept_promise() -> None:
    """It is said; so is a growth without anything to compare with."""
    judged = judge(_PROMISE, Figures(**{**_KEPT, "caught_up_s": None}), None, cores=2)
    assert judged.breaches == ()
    assert set(judged.notes) == {
        "catching up was not measured",
        "the 99th percentile has no quiet round to be compared with",
    }


def test_a_fault_that_was_not_felt_is_said() -> None:
    """A disk that was full for too short a time proves nothing about refusals."""
    promise = Promise(text="refused with Retry-After", refusals=True)
    assert judge(promise, Figures(strikes=1), None, cores=2).notes == (
        "no feedback was refused: the fault was not felt, or one retry was enough",
    )
    assert judge(promise, Figures(strikes=1, refused=1), None, cores=2).notes == ()


def test_what_waited_longer_may_take_longer_to_go_out() -> None:
    """At five times the rate of arrival a minute's events take a quarter of a minute more."""
    promise = Promise(text="caught up", caught_up_s=10, drain_times=5)
    assert judge(promise, Figures(held_s=60, caught_up_s=25.0), None, cores=2).breaches == ()
    (breach,) = judge(promise, Figures(held_s=60, caught_up_s=25.1), None, cores=2).breaches
    assert breach == "catching up took 25.1 s, 25 s are promised"


def test_a_percentile_of_few_requests_is_not_judged() -> None:
    """Of 999 requests it is printed and noted; the slowest list of them is judged as ever."""
    breaches, notes = _judge(requests=999, raw_failed=9, p99_ms=9000.0, list_p99_ms=9000.0, list_max_ms=601.0)
    assert breaches == ("the slowest list took 601 ms, 600 ms are promised",)
    assert notes == ("999 requests are too few for their 99th percentile to be judged",)
