"""What a replica's listener does with bytes that are no request, or an odd one: sent raw over a real socket."""

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
from service.models import artefact
from service.models.snapshot import ModelSnapshot
from service.serving.admission import Admission, Limit
from service.serving.app import build_app
from service.serving.context import ReplicaContext
from service.serving.listener import Listener
from service.serving.store import ModelStore
from telemetry.producer import Producer
from telemetry.stream.memory_stream import MemoryServer, MemoryStream

HOST = b"Host: x\r\n"
BODY = b'{"n": 2}'
GET = b"GET /v1/popular?n=1 HTTP/1.1\r\n" + HOST
POST = b"POST /v1/recommendations HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Replica(NamedTuple):
    context: ReplicaContext
    port: int
    admission: Admission

    async def say(self, raw: bytes, answers: int = 1) -> tuple[list[Answer], bool]:
        """Send bytes; return so many answers, and whether the connection was closed right behind them."""
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

    async def say_one_by_one(self, *requests: bytes) -> tuple[list[Answer], bool]:
        """Send requests on one connection, each once the one before is answered; then as `say`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        found = []
        async with asyncio.timeout(5):
            for raw in requests:
                # The server has time to wait for it, as it does for most.
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


async def read_answer(reader: asyncio.StreamReader, *, head_only: bool) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    status = int(head[0].split()[1])
    if status == 100:
        return await read_answer(reader, head_only=head_only)
    return Answer(status, headers, b"" if head_only else await reader.readexactly(int(headers["content-length"])))


@pytest.fixture
async def replica(
    tmp_path: Path,
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Callable[..., str],
    free_port: Callable[[], int],
) -> AsyncIterator[Replica]:
    config = Config(home=tmp_path)
    version = publish_snapshot(config.models_dir, make_snapshot(n_items=60))
    producer = Producer.open(config.spool_dir, 0, config.producer, MemoryStream(MemoryServer()))
    context = ReplicaContext(config, ModelStore(artefact.load(config.models_dir / version)), producer, Metrics())
    port = free_port()
    admission = Admission(config.server.list_target_s, config.server.feedback_target_s)
    listener = Listener(build_app(context), "127.0.0.1", port, config.server, admission)
    await listener.start()
    yield Replica(context, port, admission)
    # Whatever was sent, everything that was taken on is let go of again.
    await listener.close()
    assert (admission.lists.open, admission.feedback.open) == (0, 0)
    await listener.close()
    producer.close()


NO_REQUESTS = {
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


@pytest.mark.parametrize("raw", NO_REQUESTS.values(), ids=NO_REQUESTS.keys())
async def test_what_is_no_request_is_one_problem_and_a_closed_connection(replica: Replica, raw: bytes) -> None:
    """400 as problem+json that quotes nothing of what was sent, and what follows on the connection is not read."""
    (answer,), closed = await replica.say(raw + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.status == 400
    assert closed
    assert answer.headers["content-type"] == "application/problem+json"
    problem = orjson.loads(answer.body)
    assert problem["type"] == "/problems/malformed"
    assert not any(quoted in answer.body for quoted in (b"aaaa", b"healthz", b"X-A", b"\\x", b"ZZ"))
    assert replica.faults == 0


ODD_REQUESTS: dict[str, tuple[bytes, int]] = {
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


@pytest.mark.parametrize(("raw", "status"), ODD_REQUESTS.values(), ids=ODD_REQUESTS.keys())
async def test_odd_requests_are_answered_as_they_should_be(replica: Replica, raw: bytes, status: int) -> None:
    """Correctly or with a problem of the caller's, and never with a fault of ours."""
    (answer,), _closed = await replica.say(raw)
    assert answer.status == status
    kind = "application/problem+json" if status >= 400 else ("application/json", "text/plain; charset=utf-8")
    assert answer.headers["content-type"] in kind
    assert replica.faults == 0


async def test_pipelined_requests_are_answered_in_their_order(replica: Replica) -> None:
    """Also when they arrive in one packet, where all of them are ranked in one turn."""
    raw = b"".join(b"GET /v1/recommendations/u%d?n=1 HTTP/1.1\r\n" % user + HOST + b"\r\n" for user in range(5))
    answers, closed = await replica.say(raw, answers=5)
    assert [orjson.loads(answer.body)["user_id"] for answer in answers] == [f"u{user}" for user in range(5)]
    assert not closed


@pytest.mark.parametrize("framing", [b"Content-Length: 50\r\n\r\n{", CHUNKED + b"8\r\n{"], ids=["length", "chunks"])
async def test_a_client_that_leaves_within_its_body_is_no_fault_of_ours(
    replica: Replica, framing: bytes, await_until: Callable[..., Any]
) -> None:
    """It is counted as its own mistake, so that the alarm for faults stays quiet."""
    _reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    writer.write(POST + framing)
    await writer.drain()
    writer.transport.abort()
    labels = {"route": "/v1/recommendations", "status": "400"}
    registry = replica.context.metrics.registry
    await await_until(lambda: registry.get_sample_value("recollect_requests_total", labels) == 1, what="the 400")
    assert replica.faults == 0


# --- overload: what is beyond the limits


LIST = b"GET /v1/recommendations/u1?n=1 HTTP/1.1\r\n" + HOST + b"\r\n"
PLAIN = b"GET /recommend/u1 HTTP/1.1\r\n" + HOST + b"\r\n"
EVENT = b'{"events": [{"type": "click", "user_id": "u1", "item_id": "i1"}]}'
EVENTS = b"POST /v1/events HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
DELETE = b"DELETE /v1/users/u1 HTTP/1.1\r\n" + HOST + b"\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"


@contextlib.contextmanager
def full(*limits: Limit) -> Iterator[None]:
    """Have as many requests open as there may be."""
    taken = [(limit, limit.limit - limit.open) for limit in limits]
    for limit, count in taken:
        limit.open += count
    try:
        yield
    finally:
        for limit, count in taken:
            limit.open -= count


def said(answer: Answer) -> tuple[int, dict[str, str], Any]:
    return (
        answer.status,
        {name: value for name, value in answer.headers.items() if name != "date"},
        orjson.loads(answer.body),
    )


async def test_lists_beyond_their_limit_are_refused_and_say_when_to_come_back(replica: Replica) -> None:
    """The same words whether a request was refused as it arrived or after it was parsed; the connection stays."""
    with full(replica.admission.lists):
        # Whole and alone: refused as it arrives, from the second one on; two at once: refused when they are parsed.
        first, second = (await replica.say(LIST + LIST, 2))[0]
        answers, closed = await replica.say_one_by_one(LIST, PLAIN, LIST)
        assert not closed
        for answer in (first, second, *answers):
            assert said(answer) == said(first)
        assert (first.status, first.headers["retry-after"]) == (503, "1")
        assert orjson.loads(first.body)["type"] == "/problems/unavailable"
        refused = replica.admission.lists.refused
        assert refused == 5
        assert replica.context.producer.counters.served.offered == 0
        # The rest of the API that needs a model goes with the lists, whatever its method.
        for raw in (b"GET /v1/model HTTP/1.1\r\n" + HOST + b"\r\n", GET + b"Connection: close\r\n\r\n", GET + b"\r\n"):
            assert (await replica.say(raw))[0][0].status == 503
    assert [answer.status for answer in (await replica.say_one_by_one(LIST, PLAIN))[0]] == [200, 200]


async def test_a_refusal_comes_before_the_body(replica: Replica) -> None:
    """Nothing is read, let alone parsed, for a request that will not be answered."""
    with full(replica.admission.lists, replica.admission.feedback):
        for head in (POST + b"Content-Length: 60000\r\n\r\n", EVENTS % 60000):
            assert [answer.status for answer in (await replica.say(head))[0]] == [503]


async def test_lists_are_refused_before_feedback_and_health_never(replica: Replica) -> None:
    """Feedback has a limit of its own, and at that limit health still answers."""
    committing = asyncio.create_task(replica.context.producer.run())
    with full(replica.admission.lists):
        assert [answer.status for answer in (await replica.say(EVENTS % len(EVENT) + EVENT))[0]] == [202]
        assert [answer.status for answer in (await replica.say(DELETE))[0]] == [202]
        with full(replica.admission.feedback):
            assert [answer.status for answer in (await replica.say(EVENTS % len(EVENT) + EVENT))[0]] == [503]
            assert [answer.status for answer in (await replica.say(DELETE))[0]] == [503]
            assert [answer.status for answer in (await replica.say(HEALTH))[0]] == [200]
            assert [answer.status for answer in (await replica.say(HEALTH.replace(b"health", b"ready")))[0]] == [200]
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
async def test_a_client_that_leaves_takes_no_place_with_it(
    replica: Replica, raw: bytes, await_until: Callable[..., Any]
) -> None:
    """Whatever was sent, and wherever it broke off: no place is taken that is not given back."""
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", replica.port)
        writer.write(LIST)
        await writer.drain()
        writer.write(raw)
        await writer.drain()
        writer.transport.abort()
    await await_until(lambda: replica.admission.lists.open == 0, what="the places")
    assert [answer.status for answer in (await replica.say(LIST))[0]] == [200]


async def test_refusals_that_nobody_reads_are_not_heaped_up(replica: Replica) -> None:
    """A client that asks and never reads waits for itself; what it may have waiting is bounded."""
    with full(replica.admission.lists):
        reader, writer = await asyncio.open_connection("127.0.0.1", replica.port, limit=1)
        # Small buffers of the kernel, so that few answers fill them.
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
