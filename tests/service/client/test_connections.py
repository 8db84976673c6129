"""Both clients on real sockets: what is sent, tried again and kept open."""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service.client import (
    Accepted,
    AsyncClient,
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    Event,
    Recommendations,
    Unavailable,
)
from tests.service.client.scripted_server import CLOSE, SILENCE, ScriptedServer, answer
from tests.support.machines.certificates import make_certificate

LIST = answer(
    200,
    json.dumps(
        {
            "recommendation_id": "r",
            "user_id": "42",
            "model": "v",
            "items": [{"item_id": "7", "score": 1, "source": "personal", "fields": {"title": None, "year": 1995}}],
            "freshness": {"as_of": "t", "events_applied": 0},
            "degraded": None,
            "shortfall": None,
            "next_page_token": None,
        }
    ),
)
ACCEPTED = answer(202, '{"accepted": 1, "durability": "disk"}')
Do = Callable[..., Any]
AwaitUntil = Callable[..., Awaitable[None]]


def with_client(url: str, *steps: Callable[[Client], Any], **options: Any) -> list[Any]:
    """Return the results of methods of `Client`; errors are results."""
    results: list[Any] = []
    with Client(url, **options) as client:
        for step in steps:
            try:
                results.append(step(client))
            except Exception as error:  # noqa: BLE001  # handed to the test
                results.append(error)
    return results


def with_async_client(url: str, *steps: Callable[[Any], Any], **options: Any) -> list[Any]:
    """Return the results of the same methods of `AsyncClient`."""

    async def run() -> list[Any]:
        async with AsyncClient(url, **options) as client:
            return [(await asyncio.gather(step(client), return_exceptions=True))[0] for step in steps]

    return asyncio.run(run())


@pytest.fixture(params=[with_client, with_async_client], ids=["threads", "asyncio"])
def do(request: pytest.FixtureRequest) -> Do:
    found: Do = request.param
    return found


def test_a_connection_is_kept_for_the_next_call(do: Do) -> None:
    """One connection, one request each, with the key of the caller."""
    with ScriptedServer([LIST, LIST, ACCEPTED]) as server:
        first, second, accepted = do(
            server.url,
            lambda client: client.recommend("42"),
            lambda client: client.recommend("42", exclude=["1"]),
            lambda client: client.send_events([Event("view", "42", "7")], key="key-of-mine"),
            api_key="secret-key",
        )
    assert isinstance(first, Recommendations)
    assert (first.item_ids, first.items[0].fields, first.next_page_token) == (
        ["7"],
        {"title": None, "year": 1995},
        None,
    )
    assert [item.score for item in first] == [1.0]
    assert len(second) == 1
    assert accepted == Accepted(1, "disk")
    assert server.n_connections == 1
    heads = [request.lower() for request in server.requests]
    assert heads[0].startswith("get /v1/recommendations/42 http/1.1\r\n")
    assert heads[1].startswith("post /v1/recommendations http/1.1\r\n")
    assert all("\r\nauthorization: bearer secret-key\r\n" in head for head in heads)
    assert [("\r\nidempotency-key: key-of-mine\r\n" in head) for head in heads] == [False, False, True]
    assert [("\r\ncontent-type: application/json\r\n" in head) for head in heads] == [False, True, True]


@pytest.mark.parametrize(
    "first",
    [CLOSE, answer(502, "", "Retry-After: 1\r\n"), answer(504, ""), ACCEPTED[:-5], "HTTP/1.1 2"],
    ids=["closed", "502", "504", "half a body", "half a head"],
)
def test_a_broken_call_is_sent_again_once_with_the_same_bytes(do: Do, first: str) -> None:
    """On a connection of its own if the first one broke."""
    with ScriptedServer([first, ACCEPTED]) as server:
        (result,) = do(server.url, lambda client: client.send_events([Event("view", "42", "7")]))
    assert result == Accepted(1, "disk")
    one, again = server.requests
    assert one == again
    assert "idempotency-key: " in one.lower()


def test_two_failures_are_an_error(do: Do) -> None:
    """The second outcome counts."""
    with ScriptedServer([CLOSE, CLOSE, CLOSE, answer(503, '{"detail": "Full."}'), LIST]) as server:
        broken, refused, served = do(server.url, *[lambda client: client.recommend("42")] * 3)
        assert len(server.requests) == 5
    assert isinstance(broken, ConnectionFailed)
    assert isinstance(refused, Unavailable)
    assert (refused.status, refused.detail) == (503, "Full.")
    assert isinstance(served, Recommendations)


def test_an_address_without_a_server(do: Do, free_port: Callable[[], int]) -> None:
    """The error says what was asked for."""
    (error,) = do(f"http://127.0.0.1:{free_port()}", lambda client: client.model())
    assert isinstance(error, ConnectionFailed)
    assert str(error).startswith("GET /v1/model got no answer: ")


def test_a_silent_server_ends_with_the_deadline(do: Do) -> None:
    """Nothing is sent again, and a later answer is not taken for that of the next call."""
    with ScriptedServer([SILENCE, LIST]) as server:
        begun_s = time.monotonic()
        late, served = do(
            server.url, lambda client: client.within(0.2).recommend("42"), lambda client: client.recommend("42")
        )
        assert time.monotonic() - begun_s >= 0.2
        assert len(server.requests) == server.n_connections == 2
    assert isinstance(late, DeadlineExceeded)
    assert isinstance(served, Recommendations)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_a_silent_attempt_is_followed_by_one_on_a_new_connection(kind: type[Client] | type[AsyncClient]) -> None:
    """As after the death of a machine whose address has moved."""
    with ScriptedServer([LIST, SILENCE, LIST]) as server:
        client = kind(server.url, attempt_s=0.2, deadline_s=10.0)
        for _ in range(2):
            if isinstance(client, Client):
                served = await asyncio.to_thread(client.recommend, "42")
            else:
                served = await client.recommend("42")
            assert isinstance(served, Recommendations)
        assert (len(server.requests), server.n_connections) == (3, 2)
        if isinstance(client, Client):
            client.close()
        else:
            await client.close()


def test_a_connection_that_the_server_closed_is_not_used(do: Do, await_until: AwaitUntil) -> None:
    """As nginx closes one after a minute: a new one is made, without a second attempt."""
    with ScriptedServer([LIST, LIST]) as server:

        def close_first(client: Any) -> Any:
            server._open[0].shutdown(2)
            return client.recommend("42") if isinstance(client, Client) else after_the_end(client)

        async def after_the_end(client: AsyncClient) -> Recommendations:
            session = client._connections._session
            assert session is not None
            assert session.connector is not None
            ((idle,),) = session.connector._conns.values()
            await await_until(lambda: not idle[0].is_connected())
            return await client.recommend("42")

        first, second = do(server.url, lambda client: client.recommend("42"), close_first, retries=0)
    assert isinstance(first, Recommendations)
    assert isinstance(second, Recommendations)
    assert server.n_connections == 2


def test_tls(do: Do, tmp_path: Path) -> None:
    """A connection is kept, and a certificate that is not trusted is refused."""
    cert, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    trusting = ssl.create_default_context(cafile=str(cert))
    with ScriptedServer([LIST, LIST], context) as server:
        served = do(server.url, *[lambda client: client.recommend("42")] * 2, ssl_context=trusting)
        assert server.n_connections == 1
        (refused,) = do(server.url, lambda client: client.recommend("42"))
    assert all(isinstance(each, Recommendations) for each in served)
    assert isinstance(refused, ConnectionFailed)
    assert "certificate" in str(refused)


def test_threads_share_a_client() -> None:
    """Each call has a connection of its own; idle ones are kept up to a bound."""
    with ScriptedServer([LIST] * 40) as server, Client(server.url, max_idle=3) as client:
        results: list[int] = []

        def work() -> None:
            results.extend(len(client.recommend("42")) for _ in range(5))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [1] * 40
        assert 1 <= len(client._pool._idle) <= 3
    assert not client._pool._idle


def test_a_client_is_made_outside_of_an_event_loop() -> None:
    """Its session begins with its first call; closing one that made none is no error."""
    unused, used = AsyncClient("http://127.0.0.1:1"), AsyncClient("http://127.0.0.1:1", retries=0)

    async def run() -> None:
        await unused.close()
        with pytest.raises(ConnectionFailed):
            await used.model()
        await used.close()

    asyncio.run(run())
