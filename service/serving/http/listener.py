"""A TCP listener that stops without losing a request, as aiohttp's own stop may when nginx reuses a connection.

The order of a stop:

1. `state.draining` makes the boundary answer with `Connection: close`, so that busy connections end.
2. The socket closes. nginx's next connection is refused, and it asks another replica, which is safe even for a POST.
3. Open connections are served until nginx closes its idle ones (its keep-alive timeout is 5 s).
4. The runner closes the remaining connections.
"""

import asyncio
import contextlib
import os
import select
import sys
from typing import cast

from aiohttp import http_parser, web

from service.errors import RunError
from service.serving.http.admission import Admission
from service.serving.http.protocol import Protocol, with_admission
from service.serving.http.settings import ServerConfig

_CLOSED_CHECK_S = 0.02


def announce(sentence: str) -> None:
    """Write one line to standard output at once, unless that would block or nothing reads it."""
    line = f"{sentence}\n".encode(errors="replace")[: select.PIPE_BUF]
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        output = sys.stdout.fileno()
        ready = select.poll()
        ready.register(output, select.POLLOUT)
        if ready.poll(0):
            os.write(output, line)


class Listener:
    """One application on one port, without a limit of open requests unless `admission` is given."""

    def __init__(
        self, app: web.Application, host: str, port: int, config: ServerConfig, admission: Admission | None = None
    ) -> None:
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._host, self._port, self._config = host, port, config
        self._admission = admission
        self._socket: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind and listen.

        Raises:
            RunError: The address cannot be bound, or aiohttp lacks its compiled parser.
        """
        if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
            raise RunError(
                "aiohttp's compiled HTTP parser is missing, and the pure one reads requests differently; reinstall it."
            )
        await self._runner.setup()
        server = cast("web.Server", self._runner.server)
        server.request_handler = with_admission(server.request_handler, self._admission)
        loop = asyncio.get_running_loop()

        def connection() -> Protocol:
            return Protocol(
                server,
                loop=loop,
                # Since aiohttp 3.14.4 also the timeout of a first request's headers.
                keepalive_timeout=self._config.keepalive_timeout_s,
                lingering_time=1.0,
                # Compressed bodies are refused, so none is inflated, not even one that is read to be discarded.
                auto_decompress=False,
                admission=self._admission,
            )

        try:
            self._socket = await loop.create_server(connection, self._host, self._port, backlog=self._config.backlog)
        except OSError as error:
            await self._runner.cleanup()
            raise RunError(
                f"{self._host}:{self._port} cannot be listened on: {os.strerror(error.errno or 0).lower()}."
            ) from error

    @property
    def url(self) -> str:
        """The base URL of the listener."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def open_connections(self) -> int:
        """Connections open now, idle ones included."""
        server = self._runner.server
        return 0 if server is None else len(server.connections)

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, and serve open connections until they close or the time is over."""
        if self._socket is not None:
            self._socket.close()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while self.open_connections and loop.time() < deadline_s:  # noqa: ASYNC110 (aiohttp has no event for it)
            await asyncio.sleep(_CLOSED_CHECK_S)

    async def close(self) -> None:
        """Close the remaining connections."""
        if self._socket is not None:
            self._socket.close()
        await self._runner.cleanup()
