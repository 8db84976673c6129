"""Malformed and unusual requests, and overload, at a replica's listener over a real socket."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from service.config import Config
from service.metrics import Metrics
from service.models.files import artefact
from service.models.snapshot import ModelSnapshot
from service.serving.app import build_app
from service.serving.http.admission import Admission, Limit
from service.serving.http.listener import Listener
from service.serving.model.store import ModelStore
from service.serving.replica.context import ReplicaContext
from telemetry.producer import Producer
from telemetry.stream.memory_stream import MemoryServer, MemoryStream

HOST = b"Host: x\r\n"
BODY = b'{"n": 2}'
GET = b"GET /v1/popular?n=1 HTTP/1.1\r\n" + HOST
POST = b"POST /v1/recommendations HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


class RawAnswer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class ListeningReplica(NamedTuple):
    context: ReplicaContext
    port: int
    admission: Admission

    async def send(self, raw: bytes, answers: int = 1) -> tuple[list[RawAnswer], bool]:
        """Send bytes; return that many answers, and whether the connection was closed after them."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(5):
                writer.write(raw)
                found = [await read_answer(reader, head_only=raw.startswith(b"HEAD")) for _ in range(answers)]
            try:
                closed = await asyncio.wait_for(reader.read(1), 0.05) == b""
            except TimeoutError:
                closed = False
            return found, closed
        finally:
            writer.close()

    async def send_in_turn(self, *requests: bytes) -> tuple[list[RawAnswer], bool]:
        """Send requests on one connection, each after the previous answer; return as `send`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        found = []
        async with asyncio.timeout(5):
            for raw in requests:
                # The server waits for the request, as it does for most.
                await asyncio.sleep(0.01)
                writer.write(raw)
                found.append(await read_answer(reader, head_only=False))
        try:
            closed = await asyncio.wait_for(reader.read(1), 0.05) == b""
        except TimeoutError:
            closed = False
        writer.close()
        return found, closed

    @property
    def faults(self) -> float:
        value = self.context.metrics.registry.get_sample_value("recollect_handler_faults_total")
        assert value is not None
        return value


async def read_answer(reader: asyncio.StreamReader, *, head_only: bool) -> RawAnswer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    status = int(head[0].split()[1])
    if status == 100:
        return await read_answer(reader, head_only=head_only)
    return RawAnswer(status, headers, b"" if head_only else await reader.readexactly(int(headers["content-length"])))


@pytest.fixture
async def replica(
    tmp_path: Path,
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Callable[..., str],
    free_port: Callable[[], int],
) -> AsyncIterator[ListeningReplica]:
    config = Config(home=tmp_path)
    version = publish_snapshot(config.models_dir, make_snapshot(n_items=60))
    producer = Producer(config.spool_dir, 0, config.producer, MemoryStream(MemoryServer()))
    context = ReplicaContext(config, ModelStore(artefact.load(config.models_dir / version)), producer, Metrics())
    port = free_port()
    admission = Admission(config.server.list_target_s, config.server.feedback_target_s)
    listener = Listener(build_app(context), "127.0.0.1", port, config.server, admission)
    await listener.start()
    yield ListeningReplica(context, port, admission)
    # Every accepted request has ended, whatever was sent.
    await listener.close()
    assert (admission.lists.open, admission.feedback.open) == (0, 0)
    await listener.close()
    producer.close()


MALFORMED = {
    "lengths of two kinds": POST + b"Content-Length: 8\r\n" + CHUNKED + b"8\r\n" + BODY + b"\r\n0\r\n\r\n",
    "two different lengths": POST + b"Content-Length: 8\r\nContent-Length: 9\r\n\r\n" + BODY,
    "the same length twice": POST + b"Content-Length: 8\r\nContent-Length: 8\r\n\r\n" + BODY,
    "a negative length": POST + b"Content-Length: -8\r\n\r\n" + BODY,
    "a length with a sign": POST + b"Content-Length: +8\r\n\r\n" + BODY,
    "a length beyond 64 bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
    "a chunk size that is none": POST + CHUNKED + b"ZZ\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk longer than it says": POST + CHUNKED + b"4\r\n" + BODY + b"\r\n0\r\n\r\n",
    "bare line feeds": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "a header of 9 KB": GET + b"X-A: " + b"a" * 9000 + b"\r\n\r\n",
    "a target of 9 KB": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "200 headers": GET + b"".join(b"X-%d: 1\r\n" % i for i in range(200)) + b"\r\n",
    "a folded header": GET + b"X-A: a\r\n b\r\n\r\n",
    "a space before the colon": GET + b"X-A : a\r\n\r\n",
    "NUL in a header": GET + b"X-A: a\x00b\r\n\r\n",
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/2.0": b"GET /healthz HTTP/2.0\r\n" + HOST + b"\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(50),
    "an unknown method": b"FOO / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a raw byte in the path": b"GET /recommend/\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "no slash": b"GET healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "a port that is none": b"GET http://x:abc/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "an address that is none": b"GET http://[::1/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_bytes_are_one_problem_and_a_closed_connection(replica: ListeningReplica, raw: bytes) -> None:
    """400 as problem+json without a quotation of the bytes; later bytes on the connection are not read."""
    (answer,), closed = await replica.send(raw + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.status == 400
    assert closed
    assert answer.headers["content-type"] == "application/problem+json"
    problem = orjson.loads(answer.body)
    assert problem["type"] == "/problems/malformed"
    assert not any(quoted in answer.body for quoted in (b"aaaa", b"healthz", b"X-A", b"\\x", b"ZZ"))
    assert replica.faults == 0


UNUSUAL: dict[str, tuple[bytes, int]] = {
    "absolute form": (b"GET http://x/v1/popular?n=1 HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "HTTP/1.0": (b"GET /v1/popular?n=1 HTTP/1.0\r\n\r\n", 200),
    "Connection: close": (GET + b"Connection: close\r\n\r\n", 200),
    "empty lines first": (b"\r\n\r\n" + GET + b"\r\n", 200),
    "a body with a GET": (GET + b"Content-Length: 8\r\n\r\n" + BODY, 200),
    "chunks": (POST + CHUNKED + b"3\r\n" + BODY[:3] + b"\r\n5\r\n" + BODY[3:] + b"\r\n0\r\n\r\n", 200),
    "Expect: 100-continue": (POST + b"Expect: 100-continue\r\nContent-Length: 8\r\n\r\n" + BODY, 200),
    "another expectation": (POST + b"Expect: a-miracle\r\nContent-Length: 8\r\n\r\n" + BODY, 200),
    "an upgrade to WebSocket": (GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 200),
    "an id that is no UTF-8": (b"GET /recommend/%ff HTTP/1.1\r\n" + HOST + b"\r\n", 422),
    "a surrogate in an id": (b"GET /recommend/%ed%a0%80 HTTP/1.1\r\n" + HOST + b"\r\n", 422),
    "a per cent sign in an id": (b"GET /recommend/100%25 HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "n twice": (b"GET /v1/popular?n=1&n=2 HTTP/1.1\r\n" + HOST + b"\r\n", 422),
    "HEAD": (b"HEAD /v1/popular HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "HEAD of what has no GET": (b"HEAD /v1/events HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "OPTIONS": (b"OPTIONS /v1/popular HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "OPTIONS of the server": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "CONNECT": (b"CONNECT x:443 HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "TRACE": (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "a body over the limit": (POST + b"Content-Length: 999999\r\n\r\n" + BODY, 413),
    "chunks over the limit": (POST + CHUNKED + b"11000\r\n" + b" " * 0x11000 + b"\r\n0\r\n\r\n", 413),
    "gzip as a transfer coding": (
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n8\r\n" + BODY + b"\r\n0\r\n\r\n",
        415,
    ),
}


@pytest.mark.parametrize(("raw", "status"), UNUSUAL.values(), ids=UNUSUAL.keys())
async def test_unusual_requests_get_their_status(replica: ListeningReplica, raw: bytes, status: int) -> None:
    """Success or a 4xx, and never an internal error."""
    (answer,), _closed = await replica.send(raw)
    assert answer.status == status
    kind = "application/problem+json" if status >= 400 else ("application/json", "text/plain; charset=utf-8")
    assert answer.headers["content-type"] in kind
    assert replica.faults == 0


async def test_pipelined_requests_are_answered_in_order(replica: ListeningReplica) -> None:
    """Also if they arrive in one packet and are ranked in one turn."""
    raw = b"".join(b"GET /v1/recommendations/u%d?n=1 HTTP/1.1\r\n" % user + HOST + b"\r\n" for user in range(5))
    answers, closed = await replica.send(raw, answers=5)
    assert [orjson.loads(answer.body)["user_id"] for answer in answers] == [f"u{user}" for user in range(5)]
    assert not closed


@pytest.mark.parametrize("framing", [b"Content-Length: 50\r\n\r\n{", CHUNKED + b"8\r\n{"], ids=["length", "chunks"])
async def test_a_client_that_disconnects_within_its_body_is_no_internal_error(
    replica: ListeningReplica, framing: bytes, await_until: Callable[..., Any]
) -> None:
    """It is counted as 400, so that the alarm for internal errors stays quiet."""
    _reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    writer.write(POST + framing)
    await writer.drain()
    writer.transport.abort()
    labels = {"route": "/v1/recommendations", "status": "400"}
    registry = replica.context.metrics.registry
    await await_until(lambda: registry.get_sample_value("recollect_requests_total", labels) == 1, what="the 400")
    assert replica.faults == 0


# --- overload


LIST = b"GET /v1/recommendations/u1?n=1 HTTP/1.1\r\n" + HOST + b"\r\n"
PLAIN = b"GET /recommend/u1 HTTP/1.1\r\n" + HOST + b"\r\n"
EVENT = b'{"events": [{"type": "click", "user_id": "u1", "item_id": "i1"}]}'
EVENTS = b"POST /v1/events HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
DELETE = b"DELETE /v1/users/u1 HTTP/1.1\r\n" + HOST + b"\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"


@contextlib.contextmanager
def full(*limits: Limit) -> Iterator[None]:
    """Fill the limits with open requests."""
    taken = [(limit, limit.limit - limit.open) for limit in limits]
    for limit, count in taken:
        limit.open += count
    try:
        yield
    finally:
        for limit, count in taken:
            limit.open -= count


def without_date(answer: RawAnswer) -> tuple[int, dict[str, str], Any]:
    return (
        answer.status,
        {name: value for name, value in answer.headers.items() if name != "date"},
        orjson.loads(answer.body),
    )


async def test_lists_beyond_their_limit_are_refused_with_retry_after(replica: ListeningReplica) -> None:
    """The answer is the same before and after parsing, and the connection stays open."""
    with full(replica.admission.lists):
        # Two at once are refused after parsing; a single one as it arrives, from the second request on.
        first, second = (await replica.send(LIST + LIST, 2))[0]
        answers, closed = await replica.send_in_turn(LIST, PLAIN, LIST)
        assert not closed
        for answer in (first, second, *answers):
            assert without_date(answer) == without_date(first)
        assert (first.status, first.headers["retry-after"]) == (503, "1")
        assert orjson.loads(first.body)["type"] == "/problems/unavailable"
        refused = replica.admission.lists.refused
        assert refused == 5
        assert replica.context.producer.counters.served.offered == 0
        # Every other route with a model has the limit of lists.
        for raw in (b"GET /v1/model HTTP/1.1\r\n" + HOST + b"\r\n", GET + b"Connection: close\r\n\r\n", GET + b"\r\n"):
            assert (await replica.send(raw))[0][0].status == 503
    assert [answer.status for answer in (await replica.send_in_turn(LIST, PLAIN))[0]] == [200, 200]


async def test_a_refusal_precedes_the_body(replica: ListeningReplica) -> None:
    """The body of a refused request is not read."""
    with full(replica.admission.lists, replica.admission.feedback):
        for head in (POST + b"Content-Length: 60000\r\n\r\n", EVENTS % 60000):
            assert [answer.status for answer in (await replica.send(head))[0]] == [503]


async def test_lists_are_refused_before_feedback_and_health_never(replica: ListeningReplica) -> None:
    """Feedback has its own limit, and health checks answer even at that limit."""
    committing = asyncio.create_task(replica.context.producer.run())
    with full(replica.admission.lists):
        assert [answer.status for answer in (await replica.send(EVENTS % len(EVENT) + EVENT))[0]] == [202]
        assert [answer.status for answer in (await replica.send(DELETE))[0]] == [202]
        with full(replica.admission.feedback):
            assert [answer.status for answer in (await replica.send(EVENTS % len(EVENT) + EVENT))[0]] == [503]
            assert [answer.status for answer in (await replica.send(DELETE))[0]] == [503]
            assert [answer.status for answer in (await replica.send(HEALTH))[0]] == [200]
            assert [answer.status for answer in (await replica.send(HEALTH.replace(b"health", b"ready")))[0]] == [200]
    committing.cancel()
    await asyncio.gather(committing, return_exceptions=True)


@pytest.mark.parametrize(
    "raw",
    [
        LIST[:-2],
        LIST + LIST[:-7],
        LIST[:-2] + b"X-A : a\r\n\r\n",
        LIST[:-2] + b"Content-Length: 5\r\n\r\n",
        LIST[:-2] + b"Content-Length: 5\r\n\r\nabcde" + LIST,
        b"GET /recommend/u1 HTTP/1.0\r\n\r\n",
        LIST * 50,
        b"\r\n\r\n" + LIST,
    ],
)
async def test_a_disconnected_client_releases_its_request(
    replica: ListeningReplica, raw: bytes, await_until: Callable[..., Any]
) -> None:
    """For any bytes, broken off anywhere, no request stays open."""
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", replica.port)
        writer.write(LIST)
        await writer.drain()
        writer.write(raw)
        await writer.drain()
        writer.transport.abort()
    await await_until(lambda: replica.admission.lists.open == 0, what="the end of the requests")
    assert [answer.status for answer in (await replica.send(LIST))[0]] == [200]


async def test_unread_refusals_are_bounded(replica: ListeningReplica) -> None:
    """A client that sends and never reads is not refused any faster than its socket drains."""
    with full(replica.admission.lists):
        reader, writer = await asyncio.open_connection("127.0.0.1", replica.port, limit=1)
        # A small buffer of the kernel, so that few answers fill it.
        client = writer.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        before, sent = replica.admission.lists.refused, 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000:
                async with asyncio.timeout(1.0):
                    writer.write(LIST)
                    await writer.drain()
                sent += 1
                if sent % 50 == 0:
                    await asyncio.sleep(0)
        assert replica.admission.lists.refused - before < sent
        writer.transport.abort()
        del reader
