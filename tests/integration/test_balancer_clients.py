"""nginx and its clients: TLS, hosts, origins, addresses behind proxies, limits, and slow clients."""

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.integration.balanced import BalancedInstallation, new_installation
from tests.integration.load import Load
from tests.support.machines.certificates import make_certificate

PAGE = "https://shop.example"
RELOAD = [sys.executable, "-m", "ops", "balance", "reload"]
# Every request is of a client of its own, if it is not about clients: the limits are low.
addresses = (f"192.0.2.{number % 256}" for number in itertools.count())


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BalancedInstallation]:
    """A running installation with everything set that is about clients."""
    made = new_installation(tmp_path_factory.mktemp("secure"))
    cert, key = make_certificate(made.folder)
    made.settings = {
        "RECOLLECT_REPLICAS": "1",
        "RECOLLECT_SPARES": "0",
        "RECOLLECT_TLS_CERT": str(cert),
        "RECOLLECT_TLS_KEY": str(key),
        "RECOLLECT_TRUSTED_PROXIES": "127.0.0.1, 10.1.0.0/16",
        "RECOLLECT_HOSTS": "recollect.test,*.shop.test",
        "RECOLLECT_CORS_ORIGINS": f"{PAGE},http://localhost:3000",
        "RECOLLECT_CLIENT_REQUESTS_PER_S": "1",
        "RECOLLECT_KEY_REQUESTS_PER_S": "1",
        "RECOLLECT_CLIENT_BURST": "3",
        "RECOLLECT_CLIENT_TIMEOUT_S": "2",
    }
    made.start_and_wait()
    yield made
    made.end()


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def connected(installation: BalancedInstallation, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", installation.port), timeout=20) as plain,
        context.wrap_socket(plain) as client,
    ):
        yield client


def ask(
    installation: BalancedInstallation, path: str, *, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Ask over TLS; an underscore in a header's name stands for a hyphen."""
    connection = http.client.HTTPSConnection("127.0.0.1", installation.port, timeout=10, context=trusting())
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(connection):
        connection.request(method, path, headers={"X-Forwarded-For": next(addresses), **named})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def presented(installation: BalancedInstallation) -> bytes | None:
    """Return the certificate that a new connection is shown."""
    with connected(installation, trusting()) as client:
        return client.getpeercert(binary_form=True)


def der(cert: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(cert.read_text())


# --- TLS


def test_tls_1_2_and_later_and_http_2_are_supported(secure: BalancedInstallation) -> None:
    """Clients without HTTP/2 get HTTP/1.1; plain HTTP gets an error that names https."""
    context = trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.minimum_version = context.maximum_version = version
        with connected(secure, context) as client:
            assert client.selected_alpn_protocol() == "h2"
    old = trusting()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="alert protocol version"), connected(secure, old):
        pass
    assert ask(secure, "/v1/model")[0] == 200
    status, headers, answer = secure.get("/v1/model", headers={"Host": "localhost"})
    assert (status, headers["Content-Type"]) == (400, "application/problem+json")
    assert "https" in json.loads(answer)["detail"]


async def test_a_new_certificate_fails_no_request(secure: BalancedInstallation) -> None:
    """nginx loads it once its files are replaced; a rejected one leaves the old one in use."""
    environ = {**os.environ, **secure.settings, "RECOLLECT_HOME": str(secure.home)}
    environ["RECOLLECT_LOGS"] = str(secure.folder / "logs")
    async with Load(secure.port, retries=1, tls=trusting()) as load:
        await load.more(50)
        before = await asyncio.to_thread(presented, secure)
        cert, key = make_certificate(secure.folder, "renewed")
        assert der(cert) != before
        async with asyncio.timeout(30):
            while await asyncio.to_thread(presented, secure) == before:
                await load.more(10)
            # Each of the two nginx takes it in its own time, and either may have the next connection.
            while {await asyncio.to_thread(presented, secure) for _ in range(16)} != {der(cert)}:
                await load.more(10)
        # Without waiting for it to be noticed.
        before = der(cert)
        make_certificate(secure.folder, "renewed again")
        done = await asyncio.to_thread(subprocess.run, RELOAD, env=environ, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert await asyncio.to_thread(presented, secure) == der(cert) != before
        await load.more(100)
    assert load.failures == []
    key.write_text("no key")
    done = await asyncio.to_thread(subprocess.run, RELOAD, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cannot load certificate key" in done.stderr
    assert presented(secure) == der(cert)
    # Not in a thread, which would outlive the time limit of the test if the sentence never comes.
    secure.wait_for("rejects the new certificate")
    assert presented(secure) == der(cert)


# --- hosts, origins and client addresses


def test_another_host_is_not_served(secure: BalancedInstallation) -> None:
    """Health checks are answered, because a health checker knows an address and no name."""
    for host in ("recollect.test", "a.shop.test", "RECOLLECT.test:443", "localhost", "127.0.0.1"):
        assert ask(secure, "/v1/model", Host=host)[0] == 200, host
    for host in ("evil.example", "shop.test.evil.example", "recollect.test.evil.example"):
        status, _, answer = ask(secure, "/v1/model", Host=host)
        assert (status, json.loads(answer)["type"]) == (421, "/problems/misdirected"), host
        assert ask(secure, "/healthz", Host=host)[0] == ask(secure, "/readyz", Host=host)[0] == 200


def test_pages_of_listed_origins_may_send_requests(secure: BalancedInstallation) -> None:
    """They may read answers and errors; a browser hides both from pages of other origins."""
    wanted = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type"}
    status, headers, _ = ask(secure, "/v1/events", method="OPTIONS", Origin=PAGE, **wanted)
    assert (status, headers["Access-Control-Allow-Origin"], headers["Vary"]) == (204, PAGE, "Origin")
    assert {"POST", "DELETE"} <= set(headers["Access-Control-Allow-Methods"].split(", "))
    assert {"Authorization", "Content-Type"} <= set(headers["Access-Control-Allow-Headers"].split(", "))
    for path, method in (("/v1/model", "GET"), ("/", "GET"), ("/healthz", "DELETE"), ("/healthz", "GET")):
        _, headers, _ = ask(secure, path, method=method, Origin=PAGE)
        assert headers.get_all("Access-Control-Allow-Origin") == [PAGE], path
        assert "Retry-After" in headers["Access-Control-Expose-Headers"]
    for origin in ("https://evil.example", f"{PAGE}.evil.example", "null", "http://shop.example"):
        _, headers, _ = ask(secure, "/v1/model", Origin=origin)
        assert (headers["Access-Control-Allow-Origin"], headers["Vary"]) == (None, "Origin")
        _, headers, _ = ask(secure, "/v1/events", method="OPTIONS", Origin=origin, **wanted)
        assert headers["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize(
    ("forwarded_for", "client"), [("192.0.2.9", "192.0.2.9"), ("6.6.6.6, 192.0.2.9, 10.1.2.3", "192.0.2.9")]
)
def test_trusted_proxies_name_the_client(secure: BalancedInstallation, forwarded_for: str, client: str) -> None:
    """The client is the last address that is not a trusted proxy; addresses that the client sent are ignored."""
    answer = ask(secure, "/v1/model", X_Forwarded_For=forwarded_for)[2]
    assert json.loads(answer)["forwarded_for"] == client


# --- rates and slow clients


def test_each_address_has_a_rate_limit(secure: BalancedInstallation) -> None:
    """429 with Retry-After; other addresses are served, and health checks always."""
    answers = [ask(secure, "/recommend/1", X_Forwarded_For="198.51.100.1") for _ in range(12)]
    assert {status for status, _, _ in answers} == {200, 429}
    status, headers, answer = next(answer for answer in answers if answer[0] != 200)
    assert (status, headers["Retry-After"], headers["Content-Type"]) == (429, "1", "application/problem+json")
    assert json.loads(answer)["type"] == "/problems/too-many-requests"
    assert ask(secure, "/recommend/1", X_Forwarded_For="198.51.100.2")[0] == 200
    for path in ("/healthz", "/readyz"):
        assert {ask(secure, path, X_Forwarded_For="198.51.100.1")[0] for _ in range(6)} == {200}


@pytest.mark.parametrize("header", ["Authorization", "X_API_Key"])
def test_each_key_has_a_rate_limit(secure: BalancedInstallation, header: str) -> None:
    """It counts requests from all addresses; another key has a limit of its own."""
    statuses = [ask(secure, "/v1/model", **{header: f"Bearer {header} 1"})[0] for _ in range(12)]
    assert set(statuses) == {200, 429}
    assert ask(secure, "/v1/model", **{header: f"Bearer {header} 2"})[0] == 200


def test_the_rate_limit_of_a_key_covers_every_way_to_send_it(secure: BalancedInstallation) -> None:
    """Another header, scheme case or number of spaces does not raise the limit."""
    key = "rk_spelled"
    ways = [{"X_API_Key": key}]
    for scheme in ("Bearer", "bearer", "BEARER", "bEaReR"):
        ways += [{"Authorization": f"{scheme}{' ' * spaces}{key}"} for spaces in (1, 2, 3)]
    statuses = [ask(secure, "/v1/model", **way)[0] for way in ways]
    assert set(statuses) == {200, 429}


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_two_keys_in_one_request_share_a_rate_limit(secure: BalancedInstallation, header: str) -> None:
    """A repeated header is counted as it is passed on, so that a second key does not raise the limit."""
    answers = []
    for number in range(12):
        with connected(secure, trusting()) as client:
            lines = f"{header}: Bearer twice\r\n{header}: Bearer {number}\r\nX-Forwarded-For: {next(addresses)}\r\n"
            client.sendall(f"GET /v1/model HTTP/1.1\r\nHost: localhost\r\n{lines}Connection: close\r\n\r\n".encode())
            answers.append(b"".join(iter(partial(client.recv, 65536), b"")))
    # An older nginx counts the first and passes it on alone; a newer one does both with both as one, which is no key.
    assert sum(b'"Bearer twice"' in answer for answer in answers) < len(answers)


HEADERS = b"GET /v1/model HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
BODY = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.1\r\nContent-Length: 9\r\n\r\nabc"


@pytest.mark.parametrize("begun", [HEADERS, BODY])
def test_a_stalled_client_is_disconnected(secure: BalancedInstallation, begun: bytes) -> None:
    """Within its headers and within its body."""
    with connected(secure, trusting()) as client:
        client.sendall(begun)
        with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
            assert client.recv(1) == b""
