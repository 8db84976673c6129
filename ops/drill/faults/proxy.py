"""A TCP proxy that behaves badly on request, between the system and its Redis.

The invariant: bytes that pass, pass unchanged and in order; what a mode withholds is either passed on when the mode
ends, or its connection is broken. So a fault of the link is all that the system ever sees.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from enum import Enum
from pathlib import Path
from typing import Any

from ops.drill import redis_commands

_CHUNK_BYTES = 65536
_SLOW_BYTES_PER_S = 64 * 1024
_SLOW_CHUNK_BYTES = 2048
# A slice is a system call here and in the other process; slicing megabytes would only measure that.
_SLICED_BYTES = 48
_LOSE_EVERY = 2


class Mode(Enum):
    """What the link does.

    OPEN: passes everything at once. REFUSED: nobody listens, and open connections are reset. SILENT: takes everything
    and passes nothing until the mode ends. SLOW: 64 KiB/s each way. LOSSY: every second XADD is passed on and applied,
    and its connection reset before the reply. SLICED: the first 48 bytes of every piece come one by one.
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
        port: Where it listens.
        upstream: Where it passes everything on to: a port of 127.0.0.1, or a socket.
    """

    def __init__(self, port: int, upstream: int | Path) -> None:
        self.port = port
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._mode = Mode.OPEN
        self._passing = asyncio.Event()
        self._passing.set()
        self._links: set[asyncio.Task[None]] = set()
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
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def set(self, mode: Mode) -> None:
        """Behave like this from now on."""
        self._mode = mode
        if mode is Mode.SILENT:
            self._passing.clear()
        else:
            self._passing.set()
        if mode is Mode.REFUSED:
            await self.close()
        else:
            await self.start()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: the server's would complain of being cancelled.
        task = asyncio.create_task(self._connect(reader, writer))
        self._links.add(task)
        task.add_done_callback(self._links.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            # Connecting is part of what a silent network does not do.
            await self._passing.wait()
            replies, upstream = await redis_commands.connect(self._upstream)
            link = _Link()
            await _first_of(self._pump(reader, upstream, "request", link), self._pump(replies, writer, "reply", link))
        except OSError:
            # The other side is away or broke the connection: so do we, below.
            pass
        finally:
            for end in (writer, upstream):
                if end is not None:
                    end.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str, link: "_Link") -> None:
        while data := await source.read(_SLOW_CHUNK_BYTES if self._mode is Mode.SLOW else _CHUNK_BYTES):
            await self._passing.wait()
            if self._mode is Mode.SLOW:
                await self._take_time(way, len(data))
            elif self._mode is Mode.LOSSY:
                if way == "reply" and link.reply_is_lost:
                    self.replies_lost += 1
                    return
                if way == "request" and b"XADD" in data:
                    self._appends += 1
                    link.reply_is_lost = self._appends % _LOSE_EVERY == 0
            elif self._mode is Mode.SLICED:
                for index in range(min(_SLICED_BYTES, len(data))):
                    sink.write(data[index : index + 1])
                    await asyncio.sleep(0)
                data = data[_SLICED_BYTES:]
            sink.write(data)
            await sink.drain()

    async def _take_time(self, way: str, size_bytes: int) -> None:
        """Wait as long as all connections' bytes of one way take together."""
        loop = asyncio.get_running_loop()
        begins_s = max(self._free_at_s[way], loop.time())
        self._free_at_s[way] = begins_s + size_bytes / _SLOW_BYTES_PER_S
        await asyncio.sleep(self._free_at_s[way] - loop.time())


class _Link:
    """What is known of one connection."""

    def __init__(self) -> None:
        self.reply_is_lost = False


async def _first_of(*pumps: Coroutine[Any, Any, None]) -> None:
    """Run both ways until one has ended, and end the other."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await task
