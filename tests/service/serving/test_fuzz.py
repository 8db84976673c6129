"""The API against its own description: generated requests, well-formed and not, on the real application and listener.

Every answer must be one that /openapi.json promises: a documented status, a body of the described shape, a problem for
every error, and never an internal error. A body that the schema refuses is never accepted.
"""

import asyncio
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # openapi-spec-validator brings it, without stubs

from service.api.openapi import build
from service.config import Config
from service.metrics import Metrics
from service.models import artefact
from service.models.snapshot import ModelSnapshot
from service.security.api_key import new_key
from service.security.keyring import Keyring
from service.serving.app import build_app
from service.serving.context import ReplicaContext
from service.serving.listener import Listener
from service.serving.store import ModelStore
from telemetry.producer import Producer
from telemetry.stream.memory_stream import MemoryServer, MemoryStream

DOCUMENT = build()
BODY_SCHEMAS = {
    "/v1/recommendations": "RecommendationsRequest",
    "/v1/recommendations/batch": "ManyRecommendationsRequest",
    "/v1/events": "EventsRequest",
}
# The same requests every time, so that a failure here is one everywhere.
seeded = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=250,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


PROBLEM = validator({"$ref": "#/components/schemas/Problem"})
REQUESTS = {path: validator({"$ref": f"#/components/schemas/{name}"}) for path, name in BODY_SCHEMAS.items()}


class RawAnswer(NamedTuple):
    status: int
    kind: str
    headers: bytes
    length: int
    body: bytes


class ListeningReplica:
    """The application behind its listener, on an event loop that runs only while a test waits for an answer."""

    def __init__(self, context: ReplicaContext) -> None:
        self._runner = asyncio.Runner()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        self._context = context
        self._listener = Listener(build_app(context), "127.0.0.1", self._port, context.config.server)
        self._runner.run(self._listener.start())
        self._shipping = self._runner.get_loop().create_task(context.producer.run())

    def send(self, raw: bytes, *, has_body: bool = True) -> RawAnswer:
        """Send one request on a connection of its own."""
        return self._runner.run(self._send(raw, has_body))

    async def _send(self, raw: bytes, has_body: bool) -> RawAnswer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            async with asyncio.timeout(10):
                writer.write(raw)
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"\r\nContent-Length: (\d+)", head)
                kind = re.search(rb"\r\nContent-Type: ([^;\r]+)", head)
                assert length is not None, head
                assert kind is not None, head
                body = await reader.readexactly(int(length[1])) if has_body else b""
            return RawAnswer(int(head.split()[1]), kind[1].decode(), head, int(length[1]), body)
        finally:
            writer.close()

    @property
    def faults(self) -> float | None:
        return self._context.metrics.registry.get_sample_value("recollect_handler_faults_total")

    @contextmanager
    def requiring_keys(self) -> Iterator[None]:
        """Require an API key that no test has."""
        self._context.gate.keyring = Keyring([new_key(("admin",), now_s=time.time())[1]])
        yield
        self._context.gate.keyring = None

    @property
    def offered(self) -> int:
        return self._context.producer.counters.served.offered

    def close(self) -> None:
        self._runner.run(self._listener.close())
        self._shipping.cancel()
        self._runner.close()
        self._context.producer.close()


@pytest.fixture(scope="module")
def replica(
    tmp_path_factory: pytest.TempPathFactory,
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Callable[[Path, ModelSnapshot], str],
) -> Iterator[ListeningReplica]:
    config = Config(home=tmp_path_factory.mktemp("fuzz"))
    version = publish_snapshot(config.models_dir, make_snapshot(n_items=60))
    producer = Producer(config.spool_dir, 0, config.producer, MemoryStream(MemoryServer()))
    replica = ListeningReplica(
        ReplicaContext(config, ModelStore(artefact.load(config.models_dir / version)), producer, Metrics())
    )
    yield replica
    replica.close()


def judge(replica: ListeningReplica, answer: RawAnswer, operation: dict[str, Any] | None) -> None:
    """Check an answer against the OpenAPI document; the operation is None if the request matches no route."""
    assert answer.status < 500 or answer.status == 503, answer
    assert replica.faults == 0
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in answer.headers, answer
    assert b"\r\nCache-Control: no-store\r\n" in answer.headers, answer
    assert answer.body.endswith(b"\n"), answer
    if answer.status >= 400:
        assert answer.kind == "application/problem+json", answer
        problem = orjson.loads(answer.body)
        PROBLEM.validate(problem)
        assert problem["status"] == answer.status
        assert (answer.status == 422) is ("errors" in problem), answer
        # 400 and 404 also answer requests that match no route.
        assert operation is None or answer.status in {400, 404} or str(answer.status) in operation["responses"], answer
        return
    assert operation is not None, answer
    content = operation["responses"][str(answer.status)]["content"]
    assert answer.kind in content, answer
    if answer.kind == "application/json":
        validator(content[answer.kind]["schema"]).validate(orjson.loads(answer.body))


def request(method: str, target: str, body: bytes | None = None, kind: bytes = b"application/json") -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n".encode("utf-8", "surrogatepass")
    if body is not None:
        head += b"Content-Type: %b\r\nContent-Length: %d\r\n" % (kind, len(body))
    return head + b"\r\n" + (body or b"")


# Ids that the model knows, and any text at all.
ids = st.one_of(
    st.integers(0, 70).map("u{}".format), st.integers(0, 70).map("i{}".format), st.text(min_size=1, max_size=130)
)
GETS = [path for path, item in DOCUMENT["paths"].items() if "get" in item]
# The names of all query fields of lists, and any text.
fields = st.sampled_from(["n", "offset", "filter", "page_token", "fields", "explain", "deadline_ms"])
values = st.one_of(
    st.integers(-3, 600).map(str),
    st.text(max_size=8),
    st.sampled_from(["007", "1e2", "٣", "1_0", "+1"]),
    st.sampled_from(['year > 3 or genre == "x"', "year == null", "not (a in [1, 'b'])", "AQAApZ1mTQHxQJQ4"]),
)


@seeded
@given(
    path=st.sampled_from(GETS),
    fill=ids,
    query=st.lists(st.tuples(st.one_of(fields, fields, st.text(max_size=5)), values), max_size=2),
)
def test_gets(replica: ListeningReplica, path: str, fill: str, query: list[tuple[str, str]]) -> None:
    """Any id and any query: a list as described, or a problem as described."""
    encoded = quote(fill, safe="", errors="surrogatepass")
    target = re.sub(r"\{\w+\}", lambda _: encoded, path)
    if query:
        target += "?" + "&".join(
            f"{quote(name, safe='', errors='surrogatepass')}={quote(value, safe='', errors='surrogatepass')}"
            for name, value in query
        )
    judge(replica, replica.send(request("GET", target)), DOCUMENT["paths"][path]["get"])


@seeded
@given(path=st.sampled_from(GETS), fill=ids, n=st.none() | values)
def test_heads(replica: ListeningReplica, path: str, fill: str, n: str | None) -> None:
    """HEAD is answered like GET, without a body and without a served event."""
    target = re.sub(r"\{\w+\}", lambda _: quote(fill, safe="", errors="surrogatepass"), path)
    if n is not None:
        target += f"?n={quote(n, safe='', errors='surrogatepass')}"
    before = replica.offered
    head = replica.send(request("HEAD", target), has_body=False)
    assert replica.offered == before
    got = replica.send(request("GET", target))
    assert (head.status, head.kind, head.body) == (got.status, got.kind, b"")
    assert head.length == got.length


@seeded
@given(
    where=st.sampled_from([(m, p) for p, item in DOCUMENT["paths"].items() for m in item]),
    name=st.sampled_from(["Authorization", "X-API-Key", "x-api-key"]),
    value=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=80)
    | st.from_regex(r"\A(Bearer |bearer  |Basic )?rk_[0-9a-f]{8}_[A-Za-z0-9_-]{43}\Z"),
)
def test_any_credentials(replica: ListeningReplica, where: tuple[str, str], name: str, value: str) -> None:
    """With keys, any other text is answered 401 on every route with a scope, and records nothing."""
    method, path = where
    operation = DOCUMENT["paths"][path][method]
    line = f"{name}: {value}\r\n".encode("latin-1")
    raw = request(method.upper(), re.sub(r"\{\w+\}", "u1", path)).removesuffix(b"\r\n") + line + b"\r\n"
    with replica.requiring_keys():
        before = replica.offered
        answer = replica.send(raw)
        assert replica.offered == before
    judge(replica, answer, operation)
    assert (answer.status == 401) is ("401" in operation["responses"]), answer


@seeded
@given(user_id=ids)
def test_erasures(replica: ListeningReplica, user_id: str) -> None:
    """Any id: a receipt as described, or a problem as described."""
    target = f"/v1/users/{quote(user_id, safe='', errors='surrogatepass')}"
    judge(replica, replica.send(request("DELETE", target)), DOCUMENT["paths"]["/v1/users/{user_id}"]["delete"])


# Valid ids, and what readers of paths give a meaning to.
good_id = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128)
pieces = st.sampled_from([*"./{}%?#;:@&=+~\\ aé", "..", "//", "/../", "%2F", "%25", "%7B"])
path_like = st.lists(pieces, min_size=1, max_size=12).map("".join)


@seeded
@given(user_id=good_id | path_like, safe=st.sampled_from(["", "{}", "!$&'()*+,;=:@{}|^"]))
def test_any_valid_id_works_on_every_route(replica: ListeningReplica, user_id: str, safe: str) -> None:
    """A percent-encoded id arrives unchanged, whatever it looks like."""
    encoded = quote(user_id, safe=safe)
    queried = quote(user_id, safe="")
    for target in (f"/recommend/{encoded}", f"/recommend?user_id={queried}"):
        assert replica.send(request("GET", target)).status == 200
    for method, path, status in (("GET", "/v1/recommendations", 200), ("DELETE", "/v1/users", 202)):
        for target in (f"{path}/{encoded}", f"{path}?user_id={queried}"):
            answer = replica.send(request(method, target))
            assert (answer.status, orjson.loads(answer.body)["user_id"]) == (status, user_id)
    for target in (f"/v1/items/{encoded}/similar", f"/v1/items/similar?item_id={queried}&n=3"):
        answer = replica.send(request("GET", target))
        assert answer.status == 200 or (answer.status == 404 and repr(user_id) in orjson.loads(answer.body)["detail"])


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
known = st.one_of(ids, good_id)
filters = st.sampled_from(['year > 3 or genre == "x"', "year == null", "not (a in [1, 'b'])", "a =="]) | st.text(
    max_size=9
)
session_item = st.fixed_dictionaries(
    {"item_id": known},
    optional={"type": st.sampled_from(["view", "rating", "dismiss"]), "value": st.none() | st.floats(-1e9, 1e9)},
)
lists = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.none() | known,
        "n": st.integers(1, 500),
        "offset": st.integers(0, 10_000),
        "exclude": st.lists(known, max_size=5),
        "include": st.none() | st.lists(known, max_size=5),
        "filter": st.none() | filters,
        "boosts": st.lists(st.fixed_dictionaries({"filter": filters, "factor": st.floats(0.01, 100)}), max_size=2),
        "pins": st.lists(st.fixed_dictionaries({"item_id": known, "position": st.integers(0, 30)}), max_size=3),
        "session": st.lists(known | session_item, max_size=3),
        "seeds": st.lists(known, max_size=3),
        "explain": st.integers(0, 20),
        "diversity": st.floats(0, 1),
        "deadline_ms": st.none() | st.integers(1, 60_000),
        "page_token": st.none() | st.text(max_size=20),
        "fields": st.lists(st.sampled_from(["title", "genres", "x"]), max_size=2),
    },
)
event = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["rating", "view", "click", "purchase", "dismiss", "impression"]),
        "user_id": known,
        "item_id": known,
    },
    optional={
        "event_id": st.none() | st.from_regex(r"\A[A-Za-z0-9_-]{8,72}\Z"),
        "value": st.none() | st.floats(-1e9, 1e9),
        "recommendation_id": st.none() | known,
        "position": st.none() | st.integers(0, 10_500),
        "ts": st.none() | st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    },
)
bodies = {
    "/v1/recommendations": lists,
    "/v1/recommendations/batch": st.fixed_dictionaries({"requests": st.lists(lists, max_size=3)}),
    "/v1/events": st.fixed_dictionaries({"events": st.lists(event, max_size=4)}),
}


@st.composite
def mutated(draw: st.DrawFn, strategy: st.SearchStrategy[Any]) -> Any:
    """Return a value with one of its parts, or all of it, replaced by anything."""
    value = draw(strategy)
    if isinstance(value, dict) and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(value)) | st.text(max_size=8) if value else st.text(max_size=8))
        return value | {name: draw(mutated(st.just(value[name])) if name in value else anything)}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(mutated(st.just(value[place]))), *value[place + 1 :]]
    return draw(anything)


@seeded
@given(data=st.data(), path=st.sampled_from(sorted(bodies)), twisted=st.booleans())
def test_json_bodies(replica: ListeningReplica, data: st.DataObject, path: str, *, twisted: bool) -> None:
    """Bodies of the described shape and ones with a part replaced; what the schema refuses is refused."""
    value = data.draw(mutated(bodies[path]) if twisted else bodies[path])
    try:
        body = orjson.dumps(value)
    except TypeError:
        # A lone surrogate, which JSON can write only as an escape; the service must refuse it.
        body = str(value).encode("utf-8", "surrogatepass")
        value = None
    answer = replica.send(request("POST", path, body))
    judge(replica, answer, DOCUMENT["paths"][path]["post"])
    if not REQUESTS[path].is_valid(value):
        assert answer.status in {400, 422}, answer


@st.composite
def with_repeats(draw: st.DrawFn, strategy: st.SearchStrategy[Any]) -> bytes:
    """Return the JSON of a value with one field of one of its objects given twice."""
    value = draw(strategy)
    objects: list[dict[str, Any]] = []

    def collect(one: Any) -> None:
        if isinstance(one, dict):
            if one:
                objects.append(one)
            for child in one.values():
                collect(child)
        elif isinstance(one, list):
            for child in one:
                collect(child)

    collect(value)
    assume(objects)
    chosen = draw(st.sampled_from(objects))
    name = draw(st.sampled_from(sorted(chosen)))
    # A name that no body has marks the place, and becomes the other one in the text.
    chosen["\U0001f511"] = chosen[name]
    indent = draw(st.none() | st.integers(0, 2))
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=indent)
    for mark in ("\U0001f511", "\\ud83d\\udd11"):
        text = text.replace(f'"{mark}"', json.dumps(name))
    return text.encode()


@seeded
@given(data=st.data(), path=st.sampled_from(sorted(bodies)))
def test_repeated_fields(replica: ListeningReplica, data: st.DataObject, path: str) -> None:
    """A body with a duplicate field is refused, at any depth and in any spelling."""
    body = data.draw(with_repeats(mutated(bodies[path])))
    answer = replica.send(request("POST", path, body))
    judge(replica, answer, DOCUMENT["paths"][path]["post"])
    assert answer.status == 422
    (error,) = orjson.loads(answer.body)["errors"]
    assert error["message"] == "is given more than once"


@seeded
@given(body=st.binary(max_size=200), path=st.sampled_from(sorted(bodies)))
def test_bytes_as_bodies(replica: ListeningReplica, body: bytes, path: str) -> None:
    """Bytes that are no JSON are answered 4xx."""
    judge(replica, replica.send(request("POST", path, body)), DOCUMENT["paths"][path]["post"])


@seeded
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
    target=st.lists(
        st.sampled_from(["v1", "recommend", "recommendations", "items", "similar", "events", "users"])
        | st.sampled_from(["..", "%2F", "%", "%00", "%ff", "", "a"])
        | st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#"), max_size=8),
        max_size=5,
    ).map("/".join),
)
def test_any_target(replica: ListeningReplica, method: str, target: str) -> None:
    """Any method and path are answered, and errors are problems."""
    answer = replica.send(request(method, "/" + target))
    if answer.status >= 400:
        judge(replica, answer, None)
    else:
        assert replica.faults == 0


@seeded
@given(raw=st.binary(min_size=1, max_size=300))
def test_bytes_as_requests(replica: ListeningReplica, raw: bytes) -> None:
    """Bytes that are no HTTP are answered 400; each has the end of a head, so that the answer need not wait for it."""
    judge(replica, replica.send(b"\x00" + raw + b"\r\n\r\n"), None)
