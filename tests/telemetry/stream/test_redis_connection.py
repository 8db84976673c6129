"""Addresses of Redis: TLS with certificates of one's own, sockets, and what is never said."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from telemetry.errors import StreamAwayError
from telemetry.stream.redis_stream import RedisStream
from tests.support.machines.certificates import make_certificate

AwaitUntil = Callable[..., Awaitable[None]]


class TlsFront:
    """Speaks TLS in front of a real Redis, for the one in the wheel does not."""

    def __init__(self, redis_port: int, certificate: tuple[Path, Path], host: str = "127.0.0.1") -> None:
        self._host = host
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        self._redis_port = redis_port
        self.versions: set[str | None] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, self._host, 0, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.versions.add(writer.get_extra_info("ssl_object").version())
        replies, requests = await asyncio.open_connection("127.0.0.1", self._redis_port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.close()

        await asyncio.gather(pump(reader, requests), pump(replies, writer))


@pytest.fixture
async def front(redis_server: Any, tmp_path: Path) -> AsyncIterator[TlsFront]:
    made = TlsFront(redis_server.port, make_certificate(tmp_path))
    await made.start()
    yield made
    await made.stop()


async def asked(url: str) -> list[str]:
    stream = RedisStream(url)
    try:
        await stream.connect()
        await stream.handshake("p", 1.0)
        return list(await stream.producers())
    finally:
        await stream.close()


async def test_tls_with_a_private_authority(front: TlsFront, redis_server: Any, tmp_path: Path) -> None:
    """Without it the certificate is not trusted; with it, and for the hosts that it names, it is."""
    authority = quote(str(tmp_path / "tls.crt"))
    with pytest.raises(StreamAwayError, match=r"(?i)certificate"):
        await asked(f"rediss://localhost:{front.port}/0")
    assert await asked(f"rediss://localhost:{front.port}/0?ssl_ca_certs={authority}") == ["p"]
    other = TlsFront(redis_server.port, (tmp_path / "tls.crt", tmp_path / "tls.key"), "127.0.0.2")
    await other.start()
    address = f"rediss://127.0.0.2:{other.port}/0"
    with pytest.raises(StreamAwayError, match=r"(?i)certificate"):
        await asked(f"{address}?ssl_ca_certs={authority}")
    assert await asked(f"{address}?ssl_ca_certs={authority}&ssl_check_hostname=false") == ["p"]
    assert await asked(f"{address}?ssl_cert_reqs=none") == ["p"]
    await other.stop()


async def test_tls_with_a_minimum_version(front: TlsFront) -> None:
    """772 is TLS 1.3, as in the standard library."""
    assert await asked(f"rediss://localhost:{front.port}/0?ssl_cert_reqs=none&ssl_min_version=772") == ["p"]
    assert front.versions == {"TLSv1.3"}


async def test_tls_with_a_client_certificate(front: TlsFront, tmp_path: Path) -> None:
    """A server that asks for one, as Redis does with tls-auth-clients, gets it; a renewed file is read again."""
    folders = tmp_path / "client", tmp_path / "renewed"
    for folder in folders:
        folder.mkdir()
    certificate, key = make_certificate(folders[0], "replica")
    front.context.load_verify_locations(certificate)
    front.context.verify_mode = ssl.CERT_REQUIRED
    address = f"rediss://localhost:{front.port}/0?ssl_cert_reqs=none"
    with pytest.raises(StreamAwayError):
        await asked(address)
    stream = RedisStream(f"{address}&ssl_certfile={quote(str(certificate))}&ssl_keyfile={quote(str(key))}")
    await stream.connect()
    assert await stream.producers() == {}
    renewed, renewed_key = make_certificate(folders[1], "replica")
    front.context.load_verify_locations(renewed)
    renewed.replace(certificate)
    renewed_key.replace(key)
    await stream.connect()
    assert await stream.producers() == {}
    certificate.unlink()
    with pytest.raises(StreamAwayError, match="cannot be reached"):
        await stream.connect()
    await stream.close()


async def test_a_unix_socket_and_a_database_number(redis_server: Any) -> None:
    """Names with characters that a URL has for itself are written in percent."""
    assert await asked(f"unix://{quote(str(redis_server.socket))}?db=3") == ["p"]
    with redis_server.client() as client:
        assert client.keys("*") == []
        assert client.info("keyspace").keys() == {"db3"}
