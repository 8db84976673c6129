import json
from typing import Any

import pytest

from ops.load.load_report import LoadTestRun, as_json, as_lines, as_table, lag_warning
from ops.load.outcome import Outcome
from ops.load.summary import Summary

_RUN = LoadTestRun(
    "http://127.0.0.1:8080", 100.0, 2.0, {"seed": 1}, {"users": "3 from a file", "items": "3 from a file"}
)


def _outcome(**fields: Any) -> Outcome:
    defaults: dict[str, Any] = {
        "kind": "recommend",
        "user_class": "known",
        "latency_s": 0.02,
        "lag_s": 0.0,
        "attempts": 1,
    }
    return Outcome(**(defaults | fields))


def _summary() -> Summary:
    summary = Summary()
    for outcome in (
        _outcome(),
        _outcome(latency_s=0.04, degraded="static", retry_cause="eof", attempts=2),
        _outcome(kind="feedback", latency_s=0.03, events=7),
        _outcome(user_class="hot", failure="status_500", detail="recommend was answered 500: [oops]"),
    ):
        summary.add(outcome)
    return summary


def test_the_json_object_has_the_keys_of_the_contract() -> None:
    """Other programs read them."""
    figures = json.loads(json.dumps(as_json(_RUN, _summary())))
    assert figures["rate_rps"] == 100.0
    assert (figures["requests"], figures["failed"], figures["failures"]) == (4, 1, {"status_500": 1})
    assert list(figures["latency_ms"]) == ["p50", "p90", "p99", "p99_9", "max"]
    assert figures["latency_ms"]["p50"] == pytest.approx(30, rel=1 / 1024)
    assert figures["latency_ms"]["max"] == 40
    assert (figures["achieved_rps"], figures["duration_s"]) == (2.0, 2.0)
    assert (figures["retried"], figures["retries"]) == (1, {"eof": 1})
    assert (figures["degraded"], figures["degradation_levels"]) == (1, {"static": 1})
    assert (figures["events_accepted"], figures["kinds"]["feedback"]["events_accepted"]) == (7, 7)
    assert figures["users"] == {"hot": 1, "known": 3}
    assert figures["sources"]["users"] == "3 from a file"


def test_an_empty_run_is_reported_without_figures() -> None:
    """Unknown figures are null, not zero."""
    run = LoadTestRun("http://127.0.0.1:8080", 100.0, 0.0, {}, {})
    figures = as_json(run, Summary())
    assert figures["latency_ms"] == {"p50": None, "p90": None, "p99": None, "p99_9": None, "max": None}
    assert (figures["requests"], figures["achieved_rps"], figures["on_schedule"]) == (0, 0.0, True)
    assert as_lines(run, Summary())[-1] == "users: none; feedback events accepted: 0"


def test_lines_and_table_have_the_figures_of_the_json() -> None:
    """In a pipe and on a terminal."""
    lines = "\n".join(as_lines(_RUN, _summary()))
    for text in (lines, as_table(_RUN, _summary())):
        assert "failed by status_500: 1, for example: recommend was answered 500: [oops]" in text
        assert "sent again after eof: 1" in text
        assert "degraded (static): 1" in text
        assert "users: 1 hot, 3 known; feedback events accepted: 7" in text
        assert "40.0" in text
    assert "all: 4 requests, 1 failed, 1 retried, 1 degraded, p50 30.0 ms" in lines


def test_a_late_generator_is_reported() -> None:
    """Its own lateness is not blamed on the service."""
    late = Summary()
    for lag_s in [0.0] * 90 + [0.08] * 10:
        late.add(_outcome(lag_s=lag_s))
    warning = lag_warning(late)
    assert warning is not None
    assert "80 ms" in warning
    assert warning in as_lines(_RUN, late)
    assert as_json(_RUN, late)["on_schedule"] is False
    assert lag_warning(_summary()) is None
