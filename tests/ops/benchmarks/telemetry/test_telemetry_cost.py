import json
import os
from pathlib import Path
from typing import Any

import pytest

from ops.benchmarks import recommend_route
from ops.benchmarks.costs.key_check_cost import measure as measure_keys
from ops.benchmarks.installations import outage
from ops.benchmarks.installations.halves import Half
from ops.benchmarks.measured_process import run_measured
from ops.benchmarks.telemetry import telemetry_cost
from ops.benchmarks.telemetry.archiving import Archiving, ArchivingTask
from ops.benchmarks.workbench import Workbench
from ops.load.closed_loop import Throughput
from service.errors import RunError


def _rounds(*rates: int) -> list[Throughput]:
    return [Throughput(rate, 0, 1.0, 0.1) for rate in rates]


def test_the_result_is_the_median_of_the_pairs_ratios() -> None:
    """One slow round does not change it."""
    comparison = recommend_route.Comparison(hello=_rounds(1000, 2000, 100), recommend=_rounds(400, 1000, 90))
    assert comparison.pair_ratios == pytest.approx([0.4, 0.5, 0.9])
    assert comparison.ratio == pytest.approx(0.5)
    figures = json.loads(json.dumps(comparison.as_json()))
    assert figures["ratio"] == 0.5
    assert figures["hello"]["requests_per_s"] == 1000
    assert figures["recommend"]["rounds"] == [400, 1000, 90]


def test_hello_is_compared_with_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two real servers of the same kind, driven in turns; what they reach depends on what else the machine does."""
    monkeypatch.setattr(recommend_route, "_WARMUP_S", 0.1)
    settled = []
    with Workbench(tmp_path, os.environ) as workbench:
        comparison = recommend_route.compare(
            hello=(workbench.start_hello(), [recommend_route.get("/")]),
            recommend=(workbench.start_hello(), [recommend_route.get("/")]),
            rounds=2,
            seconds=0.5,
            connections=8,
            settle=lambda: settled.append(True),
        )
    assert len(settled) == 2
    assert comparison.ratio > 0
    assert all(one.good > 0 and one.failed == 0 for one in (*comparison.hello, *comparison.recommend))


def test_each_known_user_is_requested_in_a_repeatable_order() -> None:
    """Percent-encoded, every user once, in the order of the seed."""
    users = ["a b", "c/d", *map(str, range(50))]
    requests = recommend_route.list_requests(users, seed=3)
    assert len(requests) == len(set(requests)) == len(users)
    assert any(request.startswith(b"GET /v1/recommendations/c%2Fd?n=10 HTTP/1.1\r\n") for request in requests)
    assert requests == recommend_route.list_requests(users, seed=3) != recommend_route.list_requests(users, seed=4)


@pytest.mark.alone
def test_the_cost_of_telemetry_is_measured_beside_the_yardstick(tmp_path: Path, redis_server: Any) -> None:
    """Short rounds with real processes, Redis and disk give consistent figures.

    Of three, as a median is what keeps one disturbed round from being the result.
    """
    said: list[str] = []
    plan = telemetry_cost.CostPlan(rounds=3, seconds=0.2, events=1000)
    core = min(os.sched_getaffinity(0))
    rounds = telemetry_cost.measure(plan, redis_server.url, tmp_path, core, said.append)
    figures = json.loads(json.dumps(rounds.figures()))
    assert said[0].startswith("round 1 of 3: ")
    assert 500 < figures["line_bytes"] < 1000
    assert 0 < figures["encode_us"] < figures["offer_us"]
    assert figures["encode_us"] < figures["batches_us"] < figures["pipeline_us"]
    assert list(figures["total_us"]) == ["500", "1000", "3000", "10000"]
    assert figures["ratio_to_pipeline"]["peak"] == pytest.approx(figures["peak_us"] / figures["pipeline_us"], abs=0.02)
    assert set(figures["accept_p50_ms"]) == {"200", "3000"}
    assert all(0 < ms <= figures["accept_p99_ms"][rate] for rate, ms in figures["accept_p50_ms"].items())
    assert figures["counted_per_s"] > figures["archived_per_s"] > 0
    titles = [title for title, *_ in telemetry_cost.rows(figures)]
    assert len(titles) == len(set(titles)) == 13


def test_a_missed_objective_of_telemetry_is_a_sentence() -> None:
    """One that holds or is not set gives none."""
    figures = {"offer_us": 8.0, "total_us": {"500": 40.0, "3000": 16.0}, "archived_per_s": 25_000}
    held = telemetry_cost.CostObjectives(offer_us=8, total_us=16, archived_per_s=25_000)
    assert list(telemetry_cost.missed(figures, held)) == []
    assert list(telemetry_cost.missed(figures, telemetry_cost.CostObjectives())) == []
    missed = list(
        telemetry_cost.missed(
            figures, telemetry_cost.CostObjectives(offer_us=7.9, total_us=15.9, archived_per_s=25_001)
        )
    )
    assert [sentence.split(" costs ")[0].split(" archives ")[0] for sentence in missed] == [
        "offering an event",
        "an event",
        "a core",
    ]


def test_halves_are_compared_with_their_neighbours() -> None:
    """The median of the pairs' ratios, away to normal; failures are added up."""

    def half(p50_ms: float, p99_ms: float, failed: int = 0) -> Half:
        failures = {"eof": failed} if failed else {}
        return Half(p50_ms=p50_ms, p99_ms=p99_ms, replica_ms=p50_ms / 2, requests=100, failures=failures)

    pairs = outage.Pairs(
        normal=[half(2, 10), half(4, 40), half(1, 5)], away=[half(3, 10), half(4, 20, failed=2), half(2, 15)]
    )
    figures = json.loads(json.dumps(pairs.figures()))
    assert (figures["p50_ratio"], figures["p99_ratio"], figures["replica_ratio"]) == (1.5, 1.0, 1.5)
    away = figures["away"]
    assert (away["p50_ms"], away["p99_ms"], away["failed"], away["failures"]) == (3, 15, 2, [{"eof": 2}])
    assert list(outage.rows(figures))[1] == ("Redis stopped", "3.00 ms", "15.00 ms", "1.50 ms", "2 of 300")


def test_a_measured_process_that_fails_is_one_sentence(tmp_path: Path) -> None:
    """With its last line of output."""
    task = ArchivingTask(redis_url="redis://127.0.0.1:1/0", directory=str(tmp_path), events=1)
    with pytest.raises(RunError, match=r"ops\.benchmarks\.telemetry\.archiving failed: .*Connect"):
        run_measured("ops.benchmarks.telemetry.archiving", task, Archiving)


def test_the_cost_of_a_key_is_measured_in_every_case() -> None:
    """Without keys, by either header, and refused."""
    assert set(measure_keys(calls=20, rounds=1)) == {"no keys", "bearer", "x-api-key", "refused"}
