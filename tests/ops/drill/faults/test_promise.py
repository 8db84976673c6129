from typing import Any

import pytest

from ops.drill.faults.promise import Figures, Promise, assess

_PROMISE = Promise(
    text="all of it",
    raw_share=0.01,
    p99_ms=100,
    list_max_ms=600,
    p99_growth=0.10,
    ready_s=1.5,
    caught_up_s=10,
    accepted_again_s=5,
)
_KEPT: dict[str, Any] = {
    "injections": 3,
    "requests": 1000,
    "raw_failed": 10,
    "p50_ms": 3.0,
    "p99_ms": 100.0,
    "max_ms": 600.0,
    "list_p99_ms": 60.0,
    "list_max_ms": 600.0,
    "ready_s": 1.5,
    "caught_up_s": 10.0,
    "accepted_again_s": 5.0,
    "load": 3.0,
}


def _assess(**changes: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    assessment = assess(_PROMISE, Figures(**{**_KEPT, **changes}), 50.0, cores=2)
    return assessment.breaches, assessment.notes


def test_figures_at_their_limits_keep_the_promise() -> None:
    """Limits are inclusive."""
    assert _assess() == ((), ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"failures": {"reset": 2, "eof": 1}}, "3 of 1000 requests failed (eof 1, reset 2)"),
        ({"raw_failed": 11}, "11 of 1000 requests would have failed without a retry"),
        ({"lost": 1}, "not in the archive"),
        ({"duplicated": 1}, "more than once"),
        ({"altered": 1}, "other content"),
        ({"p99_ms": 100.1}, "the 99th percentile took 100.1 ms, 100 ms are promised"),
        ({"list_max_ms": 601.0}, "the slowest list took 601 ms"),
        ({"list_p99_ms": 60.1}, "the lists' 99th percentile took 60.1 ms, 60 ms are promised"),
        ({"ready_s": 1.6}, "the slowest restart took 1.6 s"),
        ({"caught_up_s": 11.0}, "catching up took 11 s"),
        ({"accepted_again_s": 6.0}, "accepting feedback again took 6 s"),
        ({"problems": ("the takeover took 6.0 s",)}, "the takeover took 6.0 s"),
    ],
)
def test_every_broken_promise_is_a_breach(change: dict[str, Any], words: str) -> None:
    """With exactly one sentence."""
    breaches, _ = _assess(**change)
    assert len(breaches) == 1
    assert words in breaches[0]


def test_times_are_not_assessed_on_a_busy_machine_but_losses_are() -> None:
    """Above a load average of cores + 1 a slow answer is a note; a lost event is still a breach."""
    breaches, notes = _assess(load=3.1, p99_ms=400.0, lost=2)
    assert breaches == ("2 acknowledged events or answered lists are not in the archive",)
    (note,) = notes
    assert "not assessed at a load average of 3.1 on 2 cores" in note
    assert "400 ms" in note


def test_a_time_that_was_not_measured_is_noted() -> None:
    """So is a growth without a quiet round."""
    assessment = assess(_PROMISE, Figures(**{**_KEPT, "caught_up_s": None}), None, cores=2)
    assert assessment.breaches == ()
    assert set(assessment.notes) == {
        "catching up was not measured",
        "the 99th percentile cannot be compared with that of a quiet round",
    }


def test_a_fault_without_effect_is_noted() -> None:
    """A disk that was full too briefly proves nothing about refusals."""
    promise = Promise(text="refused with Retry-After", refusals=True)
    assert assess(promise, Figures(injections=1), None, cores=2).notes == (
        "no feedback was refused: the fault had no effect, or one retry was enough",
    )
    assert assess(promise, Figures(injections=1, refused=1), None, cores=2).notes == ()


def test_a_longer_backlog_may_take_longer_to_drain() -> None:
    """At five times the arrival rate, a backlog of a minute takes a quarter of a minute more."""
    promise = Promise(text="caught up", caught_up_s=10, drain_factor=5)
    assert assess(promise, Figures(held_s=60, caught_up_s=25.0), None, cores=2).breaches == ()
    (breach,) = assess(promise, Figures(held_s=60, caught_up_s=25.1), None, cores=2).breaches
    assert breach == "catching up took 25.1 s, 25 s are promised"


def test_a_percentile_of_few_requests_is_not_assessed() -> None:
    """Of 999 requests it is noted; their slowest list is still assessed."""
    breaches, notes = _assess(requests=999, raw_failed=9, p99_ms=9000.0, list_p99_ms=9000.0, list_max_ms=601.0)
    assert breaches == ("the slowest list took 601 ms, 600 ms are promised",)
    assert notes == ("999 requests are too few to assess their 99th percentile",)
