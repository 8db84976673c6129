from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from ops import bench
from ops.closed_loop import Throughput
from ops.workbench import Workbench

if TYPE_CHECKING:
    from pathlib import Path


def _rounds(*rates: float) -> list[Throughput]:
    return [Throughput(rate, 0, 0.1) for rate in rates]


def test_the_result_is_the_median_of_the_pairs_ratios() -> None:
    """One slow round of either side does not move it."""
    comparison = bench.Comparison(hello=_rounds(1000, 2000, 100), recommend=_rounds(400, 1000, 90))
    assert comparison.pair_ratios == pytest.approx([0.4, 0.5, 0.9])
    assert comparison.ratio == pytest.approx(0.5)
    figures = json.loads(json.dumps(comparison.as_json()))
    assert figures["ratio"] == 0.5
    assert figures["hello"]["requests_per_s"] == 1000
    assert figures["recommend"]["rounds"] == [400, 1000, 90]


def test_hello_against_itself_gives_one(tmp_path: Path) -> None:
    """Two real yardsticks, driven in turns, are about equally quick, and both answer well."""
    settled = []
    with Workbench(tmp_path, os.environ) as workbench:
        comparison = bench.compare(
            hello=(workbench.start_hello(), [bench._get("/")]),
            recommend=(workbench.start_hello(), [bench._get("/")]),
            rounds=2,
            seconds=0.5,
            connections=8,
            settle=lambda: settled.append(True),
        )
    assert len(settled) == 2
    assert 0.2 < comparison.ratio < 5
    assert all(one.requests_per_s > 100 and one.failed == 0 for one in (*comparison.hello, *comparison.recommend))


def test_each_known_user_is_asked_about_in_a_repeatable_order() -> None:
    """Percent-encoded, every user once, in the order of the seed."""
    users = ["a b", "c/d", *map(str, range(50))]
    requests = bench.list_requests(users, seed=3)
    assert len(requests) == len(set(requests)) == len(users)
    assert any(request.startswith(b"GET /v1/recommendations/c%2Fd?n=10 HTTP/1.1\r\n") for request in requests)
    assert requests == bench.list_requests(users, seed=3) != bench.list_requests(users, seed=4)
