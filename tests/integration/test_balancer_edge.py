"""Requests that nginx passes on to a replica, and requests that it answers itself."""

import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.integration.balanced import BalancedInstallation, new_installation


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BalancedInstallation]:
    """A running installation for tests that only ask it something."""
    made = new_installation(tmp_path_factory.mktemp("shared"))
    made.start_and_wait()
    yield made
    made.end()


@pytest.mark.parametrize(
    "path",
    [
        "/recommend/a%2Fb",
        "/recommend/%2F%2F",
        "/recommend/a%20b%25?x=%2F",
        "/v1/recommendations/%E2%82%AC?n=5",
        "/v1/items/a%2Fb/similar",
        "/v1/users/a%2Fb",
        "/v1/popular?n=3",
        "/v1/model",
        "/openapi.json",
        "/docs",
        "/readyz",
        "/recommend/%7B6F9619FF-8B86-D011-B42D-00CF4FC964FF%7D",
        "/recommend/{6F9619FF}",
        "/recommend/..",
        "/recommend/%2E",
        "/recommend/a//b",
        "/v1/recommendations/a%2F..%2Fb",
        "/v1/recommendations/..%2Fpopular?n=3",
        "/v1/users/.",
        "/v1/users/a%2F..%2F..%2Fhealthz",
        "/v1/users/a%2F..%2F..%2F..%2Fhealthz",
        "/v1/users/..%2F..%2F_static%2Fpopular.json",
        "/v1/users/..%2F..%2Fproblem%2F400",
        "/v1/items/..%2F..%2Fdocs/similar",
        "/v1/items/similar?item_id=..%2F..%2F..%2Fetc",
        "/v1/users?user_id=..%2F..%2F..%2Fetc",
        "/recommend?user_id=..%2F..%2Fetc",
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_path_reaches_the_replica_byte_for_byte(shared: BalancedInstallation, method: str, path: str) -> None:
    """nginx decodes and resolves nothing, so that no id leads to another route."""
    status, _, answer = shared.get(path, method=method)
    assert status == 200
    assert (json.loads(answer)["raw_path"], json.loads(answer)["method"]) == (path, method)


def test_a_path_above_the_root_is_refused(shared: BalancedInstallation) -> None:
    """nginx itself rejects such a path, with a reason."""
    status, _, answer = shared.get("/recommend/..%2F..%2Fetc")
    assert status == 400
    assert "dot segments" in json.loads(answer)["detail"]


def test_health_checks_are_answered(shared: BalancedInstallation) -> None:
    """GET and HEAD, with or without a Host; other methods get 405."""
    assert shared.get("/healthz")[0::2] == (200, b"ok\n")
    assert shared.get("/healthz", method="HEAD")[0::2] == (200, b"")
    for method in ("POST", "DELETE", "OPTIONS", "NONSENSE"):
        status, headers, answer = shared.get("/healthz", method=method)
        assert (status, headers["Allow"], json.loads(answer)["status"]) == (405, "GET, HEAD", 405)
    for path in (b"/healthz", b"/readyz"):
        assert _sent(shared, b"GET " + path + b" HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", ["/v1/item", "/v1", "/docs/", "/"])
def test_no_answer_redirects_to_another_host(shared: BalancedInstallation, path: str) -> None:
    """There is no redirect that could contain the Host header; the answer names the page of routes."""
    status, headers, answer = shared.get(path, headers={"Host": "evil.example.com"})
    assert (status, headers["Location"]) == (404, None)
    assert "evil" not in str(headers) + answer.decode()
    assert "/docs" in json.loads(answer)["detail"]


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/admin", "/v1/", "/v1/nothing", "/_static/popular.json", "/_problem/400", "/v1/eventsx"]
)
def test_an_unknown_route_is_not_passed_on(shared: BalancedInstallation, path: str) -> None:
    """Admin routes of replicas and nginx's own files cannot be reached."""
    status, headers, answer = shared.get(path)
    assert status == 404
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(answer)["type"] == "/problems/not-found"


def test_the_balancer_sets_the_client_headers(shared: BalancedInstallation) -> None:
    """Values that a client sent are overwritten."""
    headers = {"X-Forwarded-For": "6.6.6.6", "X-Request-Id": "mine"}
    answer = json.loads(shared.get("/v1/model", headers=headers)[2])
    assert answer["forwarded_for"] == "127.0.0.1"
    assert answer["request_id"] != "mine"


def test_keys_reach_the_replica(shared: BalancedInstallation) -> None:
    """The replica checks them; nginx neither changes nor logs them."""
    headers = {"Authorization": "Bearer rk_a", "X-API-Key": "rk_b", "Origin": "https://shop.example"}
    for path in ("/v1/popular", "/recommend/1", "/v1/users/1", "/v1/items/1/similar", "/v1/model"):
        answer = json.loads(shared.get(path, headers=headers)[2])
        assert (answer["authorization"], answer["api_key"], answer["origin"]) == tuple(headers.values())
    answer = json.loads(shared.get("/v1/events", method="POST", body=b"{}", headers=headers)[2])
    assert answer["authorization"] == "Bearer rk_a"


def test_a_refusal_of_a_replica_is_its_answer(shared: BalancedInstallation, wait_until: Callable[..., None]) -> None:
    """Status, body and Retry-After are unchanged, and no other replica is tried, because all may be full."""
    before = len(_refused(shared))
    status, headers, answer = shared.get("/v1/events", method="POST", body=b"{}", headers={"X-Refuse": "7"})
    assert (status, headers["Retry-After"], answer) == (503, "7", b"the spool is full")
    wait_until(lambda: len(_refused(shared)) > before, what="the line in the access log")
    assert set(_refused(shared)) == {"503"}


@pytest.mark.parametrize(
    "path", ["/recommend/42", "/v1/recommendations/42?n=3", "/v1/popular", "/v1/items/1/similar", "/v1/model"]
)
def test_a_list_is_retried_at_a_replica_with_a_model(shared: BalancedInstallation, path: str) -> None:
    """While one replica has a model, no list fails."""
    for _ in range(4):
        status, _, answer = shared.get(path, headers={"X-No-Model": "02"})
        assert (status, json.loads(answer)["slot"]) == (200, 1)


def test_without_any_model_a_list_is_the_static_one(shared: BalancedInstallation) -> None:
    """For requests that the file answers; others get a reason and Retry-After."""
    without = {"X-No-Model": "012"}
    status, headers, answer = shared.get("/recommend/42", headers=without)
    assert (status, headers["X-Degraded"], answer) == (200, "static", b"1,2,3\n")
    assert shared.get("/v1/recommendations/42?n=3", headers=without)[0] == 503
    assert shared.get("/v1/model", headers=without)[0] in {502, 503, 504}


@pytest.mark.parametrize("path", ["/recommend/42", "/v1/popular", "/v1/model"])
def test_a_refusal_for_overload_is_not_retried(
    shared: BalancedInstallation, wait_until: Callable[..., None], path: str
) -> None:
    """The refusal reaches the client; no other replica and no static list answers instead."""
    before = len(_refused(shared))
    status, headers, answer = shared.get(path, headers={"X-Refuse": "9"})
    assert (status, headers["Retry-After"], answer) == (503, "9", b"the spool is full")
    wait_until(lambda: len(_refused(shared)) > before, what="the line in the access log")
    assert set(_refused(shared)) == {"503"}


def _refused(installation: BalancedInstallation) -> list[str]:
    """The statuses of all attempts at each request that a replica refused, as the access logs have them."""
    texts = [log.read_text() for log in (installation.folder / "logs").glob("*.access.log")]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    return [line["us"] for line in lines if "503" in line["us"]]


def test_each_nginx_answers_for_itself_on_a_port_of_its_own(shared: BalancedInstallation) -> None:
    """The port answers health checks alone."""
    ports = {row.admin_port for name, row in shared.rows().items() if name.startswith("nginx-")}
    assert len(ports) == 2
    for port in ports:
        assert port is not None
        own = BalancedInstallation(shared.folder, port)
        assert own.get("/healthz")[0::2] == (200, b"ok\n")
        assert own.get("/v1/model")[0] == 404


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(shared: BalancedInstallation, chunked: bool) -> None:
    """64 KiB exactly is passed on; a byte more is 413, however it is sent."""
    body = b"x" * 65536
    assert json.loads(shared.get("/v1/events", method="POST", body=body)[2])["length"] == 65536
    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/events", iter([body, b"x"]) if chunked else body + b"x", encode_chunked=chunked)
        answer = connection.getresponse()
        assert answer.status == 413
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert json.loads(answer.read())["type"] == "/problems/too-large"


def test_an_encoded_body_is_refused(shared: BalancedInstallation) -> None:
    """No compression bombs."""
    status, headers, answer = shared.get("/v1/events", method="POST", body=b"x", headers={"Content-Encoding": "gzip"})
    assert status == 415
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(answer)["type"] == "/problems/unsupported-body"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40000 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(80)) + b"\r\n", 400),
        (
            b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 505),
        (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
def test_bytes_that_nginx_cannot_parse_are_a_problem(
    shared: BalancedInstallation, request_bytes: bytes, status: int
) -> None:
    """nginx's own error pages are never sent."""
    answer = _sent(shared, request_bytes)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"Content-Type: application/problem+json" in head
    assert json.loads(body)["status"] == status


def _sent(installation: BalancedInstallation, request: bytes) -> bytes:
    """Send bytes, and return what comes back until the connection closes or a JSON object ends."""
    with socket.create_connection(("127.0.0.1", installation.port), timeout=10) as client:
        client.sendall(request)
        client.settimeout(10)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while b"}" not in answer and (piece := client.recv(65536)):
                answer += piece
    return answer
