"""The client of the candidates service: one retry elsewhere, within the deadline, and a circuit for each address."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from service.candidates import candidate_client
from service.candidates.candidate_client import SPACE_HEADER, Answer, CandidateClient
from service.candidates.settings import CandidatesConfig
from service.errors import CandidatesUnavailable

FOUND = {"model": "m", "embedding_space": "s", "catalogue_watermark": "w", "item_ids": ["a", "b"], "scores": [2, 1]}
UNUSED = "http://127.0.0.1:9"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def answering(_request: web.Request) -> web.Response:
    return web.json_response(FOUND)


async def silent(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.json_response(FOUND)


def refusing(status: int, body: Any = None) -> Handler:
    async def refuse(_request: web.Request) -> web.Response:
        return web.json_response({"detail": "Why."} if body is None else body, status=status)

    return refuse


@asynccontextmanager
async def served(
    handler: Handler, space: str | None = None, port: int | None = None
) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """Serve one address; yields its URL and the requests that it gets."""
    got: list[web.Request] = []

    async def record(request: web.Request) -> web.StreamResponse:
        got.append(request)
        return await handler(request)

    async def readyz(_request: web.Request) -> web.Response:
        return web.Response(headers={} if space is None else {SPACE_HEADER: space})

    app = web.Application()
    app.add_routes([web.post("/v1/candidates", record), web.get("/readyz", readyz)])
    async with TestServer(app, port=port) as server:
        yield str(server.make_url("")).rstrip("/"), got


@asynccontextmanager
async def client(*urls: str, timeout_s: float = 5.0) -> AsyncIterator[CandidateClient]:
    made = CandidateClient(CandidatesConfig(",".join(urls), timeout_s))
    yield made
    made.close()


async def test_it_sends_body_and_credentials_to_the_addresses_in_turn() -> None:
    """Connections are kept."""
    async with (
        served(answering) as (first, at_first),
        served(answering) as (second, at_second),
        client(first, second) as asked,
    ):
        for _ in range(6):
            answer = await asked.ask(b'{"n": 1}', {"Authorization": "Bearer k"})
            assert answer == Answer("m", "w", ["a", "b"])
    assert (len(at_first), len(at_second)) == (3, 3)
    assert at_first[0].headers["Authorization"] == "Bearer k"
    assert at_first[0].content_type == "application/json"
    assert (asked.calls, asked.unanswered, sum(asked.failures.values())) == (6, 0, 0)


@pytest.mark.parametrize(
    "handler", [refusing(503), refusing(500), refusing(200, [1]), refusing(200, {"item_ids": [7]})]
)
async def test_another_address_gets_the_second_attempt(handler: Handler) -> None:
    """Also after an answer that is not of this API; the failing address is left alone after three of them."""
    async with (
        served(handler) as (bad, at_bad),
        served(answering) as (good, at_good),
        client(bad, good) as asked,
    ):
        answers = [await asked.ask(b"{}", {}) for _ in range(20)]
        assert asked.open_circuits == 1
    assert {tuple(answer.item_ids) for answer in answers} == {("a", "b")}
    assert (len(at_bad), len(at_good)) == (3, 20)


async def test_an_address_that_cannot_be_reached_costs_three_attempts() -> None:
    """No call fails."""
    async with served(answering) as (good, at_good), client(UNUSED, good) as asked:
        for _ in range(20):
            await asked.ask(b"{}", {})
    assert (len(at_good), asked.failures["connection"], asked.unanswered) == (20, 3, 0)


async def test_an_address_that_refused_connections_is_asked_when_the_other_one_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a rolling restart, where the second replica stops as soon as the first one listens again."""
    monkeypatch.setattr(candidate_client, "_REFUSED_S", 0.0)
    async with served(answering) as (first, _):
        port = int(first.rpartition(":")[2])
    async with AsyncExitStack() as second_stack:
        second, _ = await second_stack.enter_async_context(served(answering))
        async with client(first, second) as asked:
            for _ in range(10):
                await asked.ask(b"{}", {})
            assert asked.open_circuits == 1
            async with served(answering, port=port) as (_, at_first):
                await second_stack.aclose()
                for _ in range(10):
                    await asked.ask(b"{}", {})
                assert len(at_first) == 10


async def test_a_call_ends_within_its_deadline_though_no_address_answers() -> None:
    """The deadline of the call counts if it is shorter; from then on no request waits until the pause is over."""
    async with served(silent) as (url, got), client(url, timeout_s=0.05) as asked:
        async with asyncio.timeout(20):
            while not asked.open_circuits:
                with pytest.raises(CandidatesUnavailable, match="did not answer within"):
                    await asked.ask(b"{}", {}, 0.02)
            n_waited = len(got)
            with pytest.raises(CandidatesUnavailable, match="no address has answered lately"):
                await asked.ask(b"{}", {})
    assert len(got) == n_waited
    assert asked.failures["timeout"] == 3
    assert asked.failures["circuit"] == 1
    assert asked.unanswered == asked.calls


async def test_a_version_of_another_space_is_no_fault_of_the_service() -> None:
    """Another replica may have swapped already, so it is asked; the reason is the service's own."""
    async with served(refusing(409)) as (old, at_old), served(answering) as (new, _), client(old, new) as asked:
        for _ in range(8):
            await asked.ask(b"{}", {})
        assert asked.open_circuits == 0
    assert len(at_old) == asked.failures["embedding_space"] >= 4
    async with served(refusing(409)) as (old, _), client(old) as asked:
        with pytest.raises(CandidatesUnavailable, match=r"^Why$"):
            await asked.ask(b"{}", {})


@pytest.mark.parametrize("status", [401, 403, 422])
async def test_what_every_replica_would_refuse_is_not_tried_again(status: int) -> None:
    """It says nothing about the service."""
    async with served(refusing(status)) as (url, got), client(url) as asked:
        for _ in range(4):
            with pytest.raises(CandidatesUnavailable, match=f"{status}: Why"):
                await asked.ask(b"{}", {})
        assert (len(got), asked.open_circuits) == (4, 0)


async def test_a_caller_that_gives_up_leaves_the_try_to_the_next_one() -> None:
    """Its cancellation is no failure of the address."""
    async with served(silent) as (url, got), client(url) as asked:
        calling = asyncio.create_task(asked.ask(b"{}", {}))
        async with asyncio.timeout(20):
            while not got:  # noqa: ASYNC110  # the server is of another library
                await asyncio.sleep(0.001)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        assert (asked.open_circuits, sum(asked.failures.values())) == (0, 0)


async def test_it_waits_until_every_address_that_answers_has_a_space() -> None:
    """One that is away does not count, and without any there is nothing to wait for."""
    async with served(answering, "new") as (first, _), served(answering, "old") as (second, _):
        async with client(first, UNUSED) as asked:
            assert await asked.wait_for_space("new", 5.0)
        async with client(first, second) as asked:
            assert not await asked.wait_for_space("new", 0.0)
    async with client(UNUSED) as asked:
        assert not await asked.wait_for_space("new", 5.0)
