"""A replica's application behind its real listener, for requests of raw bytes."""

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from service.security.api_key import new_key
from service.security.keyring import Keyring
from service.serving.app import build_app
from service.serving.http.listener import Listener
from service.serving.replica.context import ReplicaContext


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


def request(method: str, target: str, body: bytes | None = None, kind: bytes = b"application/json") -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n".encode("utf-8", "surrogatepass")
    if body is not None:
        head += b"Content-Type: %b\r\nContent-Length: %d\r\n" % (kind, len(body))
    return head + b"\r\n" + (body or b"")
