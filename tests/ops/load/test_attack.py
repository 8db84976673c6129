"""The open loop. These tests compare times because the send times are its promise; bounds are lower bounds or wide."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from ops.load.attack import Attack, ClientRules
from ops.load.http_connection import HttpClient
from ops.load.outcome import Outcome
from ops.load.pacing import constant
from ops.load.population import Population
from ops.load.traffic import Mix, Traffic

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Service:
    """A real aiohttp server that answers as Recollect does, with a hook in front of every answer."""

    def __init__(self) -> None:
        self.requests: list[tuple[float, str, str | None]] = []
        self.before: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((time.monotonic(), request.method, request.headers.get("Idempotency-Key")))
        if self.before is not None and (other := await self.before(request)) is not None:
            return other
        if request.method == "POST":
            events = (await request.json())["events"]
            return web.json_response({"accepted": len(events), "durability": "disk"}, status=202)
        items = [{"item_id": str(n), "score": 1.0, "source": "personal"} for n in range(10)]
        user_id = request.match_info["user_id"]
        return web.json_response({"recommendation_id": "r", "user_id": user_id, "items": items, "degraded": None})


@pytest.fixture
async def service() -> AsyncIterator[_Service]:
    stand_in = _Service()
    app = web.Application()
    app.add_routes([web.get("/v1/recommendations/{user_id}", stand_in.answer), web.post("/v1/events", stand_in.answer)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stand_in.port = runner.addresses[0][1]
    yield stand_in
    await runner.cleanup()


async def _attack(
    port: int,
    *,
    rate_rps: float,
    duration_s: float,
    rules: ClientRules | None = None,
    feedback: float = 0.0,
    connections: int = 64,
) -> tuple[list[Outcome], float]:
    outcomes: list[Outcome] = []
    client = HttpClient("127.0.0.1", port, connections)
    population = Population(("1", "2", "3"), ("10", "11"), "a test", "a test")
    traffic = Traffic(
        population, Mix(feedback=feedback), random.Random(1), headers="Host: h\r\n", base_path="", run_id="test-run"
    )
    attack = Attack(client, traffic, rules or ClientRules(), random.Random(1), outcomes.append)
    try:
        took_s = await attack.run(constant(rate_rps, duration_s))
    finally:
        await client.aclose()
    return outcomes, took_s


async def test_the_rate_is_kept(service: _Service) -> None:
    """As many requests as the schedule has, spread over its whole length, all answered."""
    outcomes, took_s = await _attack(service.port, rate_rps=200, duration_s=1.0, feedback=0.2)
    assert len(outcomes) == len(service.requests) == 200
    assert [outcome.failure for outcome in outcomes] == [None] * 200
    assert {outcome.kind for outcome in outcomes} == {"recommend", "feedback"}
    assert took_s >= 0.995
    first_half = sum(1 for at_s, _, _ in service.requests if at_s - service.requests[0][0] < 0.5)
    assert 60 <= first_half <= 140


async def test_no_request_is_sent_before_its_time(service: _Service) -> None:
    """The n-th request arrives no earlier than the schedule says."""
    start_s = time.monotonic()
    await _attack(service.port, rate_rps=100, duration_s=0.3)
    for index, (at_s, _, _) in enumerate(sorted(service.requests)):
        assert at_s - start_s >= index / 100


async def test_a_stall_shows_in_every_request_that_waited_for_it(service: _Service) -> None:
    """One answer stalls the whole server for 300 ms: the requests due meanwhile are late from their intended times.

    A closed loop would show a single slow request (coordinated omission).
    """

    over_s: list[float] = []

    async def stall(_: web.Request) -> None:
        if len(service.requests) == 20:
            over_s.append(time.monotonic() + 0.3)
        if over_s:
            await asyncio.sleep(over_s[0] - time.monotonic())

    service.before = stall
    outcomes, _ = await _attack(service.port, rate_rps=200, duration_s=0.6)
    latencies_s = sorted(outcome.latency_s for outcome in outcomes)
    assert len(latencies_s) == 120
    assert latencies_s[-1] >= 0.29
    # 60 requests were due during the stall; their waits fall from 300 ms to 0 in steps of 5 ms.
    assert sum(1 for latency_s in latencies_s if latency_s >= 0.1) >= 38
    assert sum(1 for latency_s in latencies_s if latency_s >= 0.2) >= 18


async def test_waiting_for_a_connection_counts(service: _Service) -> None:
    """With one connection and answers of 50 ms, a request sent 10 ms later waits, and its latency includes that."""

    async def slowly(_: web.Request) -> None:
        await asyncio.sleep(0.05)

    service.before = slowly
    outcomes, _ = await _attack(service.port, rate_rps=100, duration_s=0.05, connections=1)
    latencies_s = [outcome.latency_s for outcome in outcomes]
    for index, latency_s in enumerate(latencies_s):
        assert latency_s >= 0.05 * (index + 1) - 0.01 * index - 0.002
    assert all(outcome.failure is None for outcome in outcomes)


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_the_reference_client_retries_once_with_the_same_key(service: _Service, status: int) -> None:
    """A refused POST is sent again after 10 to 50 ms, under the key of its first attempt."""
    seen: Counter[str] = Counter()

    async def refuse_first(request: web.Request) -> web.StreamResponse | None:
        key = request.headers["Idempotency-Key"]
        seen[key] += 1
        return web.Response(status=status) if seen[key] == 1 else None

    service.before = refuse_first
    outcomes, _ = await _attack(service.port, rate_rps=50, duration_s=0.1, feedback=1.0)
    assert [(o.failure, o.attempts, o.retry_cause) for o in outcomes] == [(None, 2, f"status_{status}")] * 5
    assert list(seen.values()) == [2] * 5
    assert all(outcome.latency_s >= 0.010 for outcome in outcomes)


async def test_the_second_failure_is_final(service: _Service) -> None:
    """There is one retry; the outcome has its cause and the final failure."""

    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503, text="busy")

    service.before = refuse
    outcomes, _ = await _attack(service.port, rate_rps=10, duration_s=0.1)
    (outcome,) = outcomes
    assert (outcome.failure, outcome.status, outcome.attempts, outcome.retry_cause) == (
        "status_503",
        503,
        2,
        "status_503",
    )
    assert "busy" in (outcome.detail or "")


@pytest.mark.parametrize(("status", "cause"), [(500, "status_500"), (404, "status_404"), (429, "status_429")])
async def test_other_statuses_are_not_retried(service: _Service, status: int, cause: str) -> None:
    """Only 502, 503 and 504 are."""

    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    service.before = refuse
    outcomes, _ = await _attack(service.port, rate_rps=10, duration_s=0.1)
    assert [(outcome.failure, outcome.attempts) for outcome in outcomes] == [(cause, 1)]


async def test_the_raw_client_never_retries(service: _Service) -> None:
    """A failure that a retry could cure stays a failure."""

    async def refuse_first(_: web.Request) -> web.StreamResponse | None:
        return web.Response(status=503) if len(service.requests) == 1 else None

    service.before = refuse_first
    outcomes, _ = await _attack(service.port, rate_rps=20, duration_s=0.1, rules=ClientRules(retries=0))
    assert [(outcome.failure, outcome.attempts) for outcome in outcomes] == [("status_503", 1), (None, 1)]


@pytest.mark.parametrize("retries", [0, 1])
async def test_a_connection_cut_in_mid_request_is_retried_on_another(service: _Service, retries: int) -> None:
    """The server dies under the first request: an end of file for the raw client, nothing for the reference client."""

    async def cut_first(request: web.Request) -> web.StreamResponse | None:
        if len(service.requests) == 1:
            assert request.transport is not None
            request.transport.abort()
        return None

    service.before = cut_first
    outcomes, _ = await _attack(service.port, rate_rps=10, duration_s=0.1, rules=ClientRules(retries=retries))
    (outcome,) = outcomes
    assert (outcome.failure, outcome.retry_cause) == ((None, "eof") if retries else ("eof", None))


async def test_a_dead_service_fails_by_connect(free_port: Callable[[], int]) -> None:
    """Outcomes have the cause; nothing is raised."""
    outcomes, _ = await _attack(free_port(), rate_rps=50, duration_s=0.1)
    assert Counter(outcome.failure for outcome in outcomes) == {"connect": 5}


async def test_the_deadline_holds_over_all_attempts(service: _Service) -> None:
    """A request without an answer ends at its deadline, counted from its intended time; later ones still leave."""

    over = asyncio.Event()

    async def hang(_: web.Request) -> None:
        await over.wait()

    service.before = hang
    # Nothing but the deadline can end these: the service answers only after the attack.
    outcomes, _ = await _attack(service.port, rate_rps=20, duration_s=0.2, rules=ClientRules(deadline_s=0.15))
    over.set()
    assert [outcome.failure for outcome in outcomes] == ["timeout"] * 4
    assert len(service.requests) == 4
    assert all(outcome.latency_s >= 0.149 for outcome in outcomes)


async def test_a_silent_attempt_is_followed_by_one_on_a_new_connection(service: _Service) -> None:
    """As after the death of a machine: with a limit for an attempt, a request is tried again before its deadline."""
    silent = asyncio.Event()

    async def hang_first(_: web.Request) -> None:
        if len(service.requests) == 1:
            await silent.wait()

    service.before = hang_first
    rules = ClientRules(retries=1, deadline_s=20.0, attempt_s=0.2)
    outcomes, _ = await _attack(service.port, rate_rps=10, duration_s=0.1, rules=rules)
    silent.set()
    (outcome,) = outcomes
    assert (outcome.failure, outcome.retry_cause, outcome.attempts) == (None, "silent", 2)


async def test_a_stopped_attack_sends_no_more_and_finishes_open_requests(service: _Service) -> None:
    """Ctrl-C ends a run early with the figures so far."""
    outcomes: list[Outcome] = []
    client = HttpClient("127.0.0.1", service.port, 8)
    population = Population(("1",), ("10",), "a test", "a test")
    traffic = Traffic(
        population, Mix(feedback=0), random.Random(1), headers="Host: h\r\n", base_path="", run_id="test-run"
    )

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if len(outcomes) == 5:
            attack.stop()

    attack = Attack(client, traffic, ClientRules(), random.Random(1), note)
    took_s = await attack.run(constant(100, 60.0))
    await client.aclose()
    assert 5 <= len(outcomes) == len(service.requests) < 50
    assert took_s < 5.0
