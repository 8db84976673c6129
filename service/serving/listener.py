"""A TCP listener whose stop loses no request, which aiohttp's own stop does when nginx reuses a connection meanwhile.

The order of `drain`, and why: first answers carry `Connection: close` (the boundary sees `state.draining`), so busy
connections end by themselves; then nothing new is accepted, and nginx, refused, goes to another replica, which is safe
even for a POST; then what is open is served until nginx lets go of its idle connections (its keep-alive timeout is 5
s); only then is the runner cleaned up, which would close them at once.
"""

import asyncio
import contextlib
import os
import select
import sys
from typing import cast

from aiohttp import http_parser, web

from service.config import ServerConfig
from service.errors import RunError
from service.serving.admission import Admission
from service.serving.protocol import Protocol, guarded


def announce(sentence: str) -> None:
    """Write one line to standard output at once, unless its reader is gone or does not read."""
    line = f"{sentence}\n".encode(errors="replace")[: select.PIPE_BUF]
    # A reader of our output that went away, or does not read, is no reason not to serve.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        output = sys.stdout.fileno()
        ready = select.poll()
        ready.register(output, select.POLLOUT)
        if ready.poll(0):
            os.write(output, line)


class Listener:
    """One application on one port.

    Args:
        app: What answers.
        host: The address to bind.
        port: The port to bind.
        config: Timeouts and backlog.
        admission: What is taken on; None where everything is.
    """

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
                "aiohttp's compiled HTTP parser is missing, and the pure one reads requests differently; reinstall it"
            )
        await self._runner.setup()
        # Set up the line before, so it is there.
        server = cast("web.Server", self._runner.server)
        server.request_handler = guarded(server.request_handler, self._admission)
        loop = asyncio.get_running_loop()

        def connection() -> Protocol:
            return Protocol(
                server,
                loop=loop,
                # Since aiohttp 3.14.4 this is also how long a first request's headers may take.
                keepalive_timeout=self._config.keepalive_timeout_s,
                lingering_time=1.0,
                # Nothing is inflated, not even what is read only to be thrown away.
                auto_decompress=False,
                admission=self._admission,
            )

        try:
            self._socket = await loop.create_server(connection, self._host, self._port, backlog=self._config.backlog)
        except OSError as error:
            await self._runner.cleanup()
            raise RunError(
                f"{self._host}:{self._port} cannot be listened on: {os.strerror(error.errno or 0).lower()}"
            ) from error

    @property
    def url(self) -> str:
        """Where it listens."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def open_connections(self) -> int:
        """Connections open now, idle ones included."""
        server = self._runner.server
        return 0 if server is None else len(server.connections)

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting and serve what is open until it is closed or the time is over."""
        if self._socket is not None:
            self._socket.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        # aiohttp tells nobody when a connection closes, so this looks.
        while self.open_connections and loop.time() < deadline:  # noqa: ASYNC110 (the line above)
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Close whatever is left."""
        if self._socket is not None:
            self._socket.close()
        await self._runner.cleanup()
