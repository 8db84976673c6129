"""A TCP proxy between the system and its Redis that injects faults of the link.

Invariant: bytes pass unchanged and in order. Bytes that a mode withholds pass when the mode ends, or their connection
is broken.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from enum import Enum
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 65536
_SLOW_BYTES_PER_S = 64 * 1024
_SLOW_CHUNK_BYTES = 2048
# Each sliced byte costs a system call on both sides.
_SLICED_BYTES = 48
_LOSE_REPLY_EVERY = 2


class LinkMode(Enum):
    """The fault of the link.

    OPEN: none. REFUSED: connections are refused, and open ones reset. SILENT: bytes are accepted and held until the
    mode ends. SLOW: 64 KiB/s each way. LOSSY: every second XADD is applied, and its connection reset before the reply.
    SLICED: the first 48 bytes of every piece arrive one by one.
    """

    OPEN = "open"
    REFUSED = "refused"
    SILENT = "silent"
    SLOW = "slow"
    LOSSY = "lossy"
    SLICED = "sliced"


class Proxy:
    """One listening port of 127.0.0.1 in front of a server.

    Args:
        port: The port.
        upstream: The server: a port of 127.0.0.1, or a socket.

    Attributes:
        replies_lost: Replies that LOSSY has dropped.
    """

    def __init__(self, port: int, upstream: int | Path) -> None:
        self.port = port
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._mode = LinkMode.OPEN
        self._passing = asyncio.Event()
        self._passing.set()
        self._connections: set[asyncio.Task[None]] = set()
        self._free_at_s = {"request": 0.0, "reply": 0.0}
        self._appends = 0
        self.replies_lost = 0

    async def start(self) -> None:
        """Listen."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Stop listening and break every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def set_mode(self, mode: LinkMode) -> None:
        """Switch to another mode."""
        self._mode = mode
        if mode is LinkMode.SILENT:
            self._passing.clear()
        else:
            self._passing.set()
        if mode is LinkMode.REFUSED:
            await self.close()
        else:
            await self.start()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # In a task of its own: the server's logs an error when it is cancelled.
        task = asyncio.create_task(self._relay(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            # A silent network does not connect either.
            await self._passing.wait()
            replies, upstream = await self._connect_upstream()
            link = _LinkState()
            await _first_of(self._pump(reader, upstream, "request", link), self._pump(replies, writer, "reply", link))
        except OSError:
            # Upstream is away or broke the connection: both ends are closed below.
            pass
        finally:
            for end in (writer, upstream):
                if end is not None:
                    end.transport.abort()

    async def _connect_upstream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._upstream, int):
            return await asyncio.open_connection("127.0.0.1", self._upstream)
        return await asyncio.open_unix_connection(self._upstream)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str, link: "_LinkState"
    ) -> None:
        while data := await source.read(_SLOW_CHUNK_BYTES if self._mode is LinkMode.SLOW else _CHUNK_BYTES):
            await self._passing.wait()
            if self._mode is LinkMode.SLOW:
                await self._wait_for_bandwidth(way, len(data))
            elif self._mode is LinkMode.LOSSY:
                if way == "reply" and link.reply_is_lost:
                    self.replies_lost += 1
                    return
                if way == "request" and b"XADD" in data:
                    self._appends += 1
                    link.reply_is_lost = self._appends % _LOSE_REPLY_EVERY == 0
            elif self._mode is LinkMode.SLICED:
                for index in range(min(_SLICED_BYTES, len(data))):
                    sink.write(data[index : index + 1])
                    await asyncio.sleep(0)
                data = data[_SLICED_BYTES:]
            sink.write(data)
            await sink.drain()

    async def _wait_for_bandwidth(self, way: str, size_bytes: int) -> None:
        """Wait for the bandwidth that all connections share in one direction."""
        loop = asyncio.get_running_loop()
        begins_s = max(self._free_at_s[way], loop.time())
        self._free_at_s[way] = begins_s + size_bytes / _SLOW_BYTES_PER_S
        await asyncio.sleep(self._free_at_s[way] - loop.time())


class _LinkState:
    """The state of one connection."""

    def __init__(self) -> None:
        self.reply_is_lost = False


async def _first_of(*pumps: Coroutine[Any, Any, None]) -> None:
    """Run both directions until one ends, and cancel the other."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await task
