"""The verdict of the stop-watch, and its watch over a replica that answers late."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from ops.benchmarks.freshness import faults
from ops.benchmarks.freshness.live_freshness import Freshness, Phase, rows
from ops.benchmarks.freshness.stopwatch import Probe, Stopwatch
from ops.load.population import Target

QUIET = Phase("quiet", faults.nothing, 1.0)
KILLED = Phase("killed", faults.kill_consumer, 5.0, share=1.0)


def probe(*delays_s: float, late: tuple[str, ...] = ()) -> Probe:
    return Probe("u1", 0.0, {f"replica-{slot}": delay_s for slot, delay_s in enumerate(delays_s)}, late)


def test_each_promise_has_its_share() -> None:
    """One in a hundred may be slower while all runs; after a kill none may."""
    result = Freshness({"quiet": [probe(0.1)] * 99 + [probe(9.0)], "killed": [probe(0.1, 4.9)]}, {})
    assert list(result.broken_promises((QUIET, KILLED))) == []
    result.probes["quiet"][:2] = [probe(1.5), probe(1.5)]
    result.probes["killed"][0] = probe(0.1, 5.1)
    assert list(result.broken_promises((QUIET, KILLED))) == [
        "quiet: the 99% quantile of the delays was 1.50 s, and is promised to be at most 1 s",
        "killed: the longest delay was 5.10 s, and is promised to be at most 5 s",
    ]


def test_an_event_that_never_comes_and_a_difference_are_broken_promises() -> None:
    """Whatever the other delays are."""
    result = Freshness(
        {"quiet": [probe(0.0)] * 999 + [probe(30.0, late=("replica-0",))]}, {"quiet": {}}, ["They differ."]
    )
    assert list(result.broken_promises((QUIET,))) == ["quiet: 1 lists never had their event", "They differ."]
    assert list(rows(result, (QUIET,))) == [("quiet", "1000", "0 ms", "0 ms", "30,000 ms", "99% within 1 s")]
    assert result.figures()["phases"]["quiet"]["replica-0"] == {"p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 30000.0}


@asynccontextmanager
async def replica(n_stale: int) -> AsyncIterator[tuple[Target, int]]:
    """An edge and replica in one, whose first lists lack the event."""
    asked: list[str] = []

    async def lists(request: web.Request) -> web.Response:
        asked.append(request.path)
        is_stale = len(asked) <= n_stale
        items: list[dict[str, Any]] = [{"item_id": "i1"}] if is_stale else [{"item_id": "i2"}]
        return web.json_response({"freshness": {"events_applied": 0 if is_stale else 1}, "items": items})

    async def events(_request: web.Request) -> web.Response:
        return web.json_response({"accepted": 1}, status=202)

    app = web.Application()
    app.add_routes([web.get("/v1/recommendations/{user_id}", lists), web.post("/v1/events", events)])
    async with TestServer(app) as server:
        assert server.port is not None
        yield Target("127.0.0.1", server.port, ""), server.port


async def test_the_delay_ends_with_the_last_list_without_the_event() -> None:
    """No delay if there is none; a replica that stays stale is late."""
    for n_stale, late in ((0, ()), (3, ()), (10**6, ("replica-0",))):
        async with replica(n_stale) as (target, port):
            stopwatch = Stopwatch(target, partial(dict, {"replica-0": port}), ("i1",), "run", 0.001, deadline_s=0.5)
            found = await stopwatch.probe()
            await stopwatch.aclose()
        assert found.late == late
        assert (found.delays_s["replica-0"] > 0) is (n_stale > 0)
        assert stopwatch.users == ["run-0"]


async def test_a_user_has_many_events_and_then_another_user_begins() -> None:
    """Unless a new user is asked for."""
    async with replica(0) as (target, port):
        stopwatch = Stopwatch(target, lambda: {"replica-0": port}, ("i1",), "run", 0.001)
        assert (await stopwatch.probe()).user_id == "run-0"
        assert (await stopwatch.probe(new_user=True)).user_id == "run-1"
        await stopwatch.aclose()
    await asyncio.sleep(0)
