"""Connections carry one request at a time, and give nothing back that was not asked for."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
from yarl import URL

from service.candidates import connections as connections_module
from service.candidates.connections import Connections
from service.errors import CandidatesUnavailable


class Script:
    """Answers each request with the next pieces of bytes, one write each; b"" closes the connection."""

    def __init__(self, *answers: Sequence[bytes]) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.n_connections = 0
        self.serving: list[asyncio.Task[None]] = []

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_connections += 1
        self.serving.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                for piece in self.answers.pop(0):
                    if not piece:
                        writer.close()
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Connections]:
    server = await asyncio.start_server(script.accept, "127.0.0.1", 0)
    connections = Connections(URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/below/"))
    yield connections
    connections.close()
    server.close()
    async with asyncio.timeout(20):
        await asyncio.gather(*script.serving)


def answer(body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (headers, len(body), body)


async def test_requests_one_after_the_other_take_one_connection() -> None:
    """The answer may arrive in any pieces, with headers in any case."""
    whole = answer(b"second")
    script = Script(
        [answer(b"first")],
        [whole[index : index + 1] for index in range(len(whole))],
        [b"HTTP/1.1 503 No\r\nX-Embedding-Space: ab\r\ncontent-LENGTH:0\r\n\r\n"],
    )
    async with serving(script) as connections:
        first = await connections.exchange("POST", "/x", {"Authorization": "Bearer ü\udcff"}, b"body")
        second = await connections.exchange("GET", "/y", {})
        third = await connections.exchange("GET", "/z", {})
    assert [(one.status, one.body) for one in (first, second, third)] == [(200, b"first"), (200, b"second"), (503, b"")]
    assert b"\r\nx-embedding-space: ab\r\n" in third.head
    assert script.n_connections == 1
    head, _, body = script.requests[0].partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"POST /below/x HTTP/1.1"
    assert b"Authorization: Bearer \xc3\xbc\xff" in head
    assert body == b"body"


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n"],
        [b"nonsense\r\nContent-Length: 1\r\n\r\nx"],
        [b"x" * 70_000],
    ],
)
async def test_an_answer_of_another_protocol_is_refused(pieces: list[bytes]) -> None:
    """And its connection is closed."""
    script = Script(pieces, [answer(b"good")])
    async with serving(script) as connections:
        with pytest.raises(CandidatesUnavailable):
            await connections.exchange("GET", "/", {})
        assert (await connections.exchange("GET", "/", {})).body == b"good"
    assert script.n_connections == 2


@pytest.mark.parametrize("pieces", [[b""], [answer(b"half")[:-2], b""], [b"HTTP/1.1 2", b""]])
async def test_a_connection_that_breaks_is_an_error(pieces: list[bytes]) -> None:
    """Whether before the answer or within it."""
    script = Script(pieces, [answer(b"good")])
    async with serving(script) as connections:
        with pytest.raises(ConnectionError):
            await connections.exchange("GET", "/", {})
        assert (await connections.exchange("GET", "/", {})).body == b"good"


@pytest.mark.parametrize("first", [answer(b"a", b"Connection: Close\r\n"), answer(b"a") + b"more"])
async def test_a_connection_that_ends_or_says_more_is_not_used_again(first: bytes) -> None:
    """Its answer counts."""
    script = Script([first], [answer(b"b")])
    async with serving(script) as connections:
        assert (await connections.exchange("GET", "/", {})).body == b"a"
        assert (await connections.exchange("GET", "/", {})).body == b"b"
    assert script.n_connections == 2


async def test_an_abandoned_request_takes_its_connection_with_it() -> None:
    """The late answer would otherwise be that of the next request."""
    script = Script([], [answer(b"good")])
    async with serving(script) as connections:
        asking = asyncio.create_task(connections.exchange("GET", "/slow", {}))
        async with asyncio.timeout(20):
            while not script.requests:  # noqa: ASYNC110  # the server is of another library
                await asyncio.sleep(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (await connections.exchange("GET", "/", {})).body == b"good"
    assert script.n_connections == 2


async def test_unused_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a replica that stops need not wait for them; the next request opens another."""
    monkeypatch.setattr(connections_module, "_IDLE_S", 0.01)
    script = Script([answer(b"a")], [answer(b"b")])
    async with serving(script) as connections:
        await connections.exchange("GET", "/", {})
        async with asyncio.timeout(20):
            # The server's side of the connection ends.
            await script.serving[0]
        assert (await connections.exchange("GET", "/", {})).body == b"b"
    assert script.n_connections == 2


async def test_requests_at_once_take_a_connection_each() -> None:
    """They are kept for later."""
    script = Script(*([answer(b"x")] for _ in range(6)))
    async with serving(script) as connections:
        for _ in range(2):
            await asyncio.gather(*(connections.exchange("GET", "/", {}) for _ in range(3)))
    assert script.n_connections == 3
