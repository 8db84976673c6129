"""The address of a service: passes connections to one of its ready pods, as a node of the cluster does.

Invariant: like a node, it learns of a change late, sends a connection to a pod at random, and does not try another one:
a connection to a pod that is gone is reset.
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Self

_POLL_S: Final = 0.05
_CONNECT_TIMEOUT_S: Final = 1.0
_CHUNK_BYTES: Final = 65536


class ServiceAddress:
    """A port of loopback; a context in which it listens.

    Args:
        ready: Returns the addresses of the pods that are ready now.
        port: The port of the pods.
        lag_s: How late a change is known.
    """

    def __init__(self, ready: Callable[[], list[str]], port: int, lag_s: float) -> None:
        self._ready = ready
        self._pod_port = port
        self._lag_s = lag_s
        self._changes: deque[tuple[float, list[str]]] = deque()
        self._known: list[str] = []
        self._rng = random.Random(5)  # noqa: S311 - repeatable, no secret
        self._passing: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        """Listen, and know the pods that are ready now."""
        self._known = self._ready()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        self._server.close()
        for task in (self._watching, *self._passing):
            task.cancel()
        await asyncio.gather(self._watching, *self._passing, return_exceptions=True)

    async def _watch(self) -> None:
        last = self._known
        while True:
            found = self._ready()
            now_s = time.monotonic()
            if found != last:
                self._changes.append((now_s + self._lag_s, found))
                last = found
            while self._changes and self._changes[0][0] <= now_s:
                self._known = self._changes.popleft()[1]
            await asyncio.sleep(_POLL_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)
        other: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                answers, other = await asyncio.open_connection(self._rng.choice(self._known), self._pod_port)
            await asyncio.gather(_copy(reader, other), _copy(answers, writer))
        except (OSError, TimeoutError, IndexError, asyncio.CancelledError):
            # Only the end of the context cancels it, and a stream server logs a cancelled task.
            writer.transport.abort()
        finally:
            for end in (writer, other):
                if end is not None:
                    end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction until its end, and pass the end on."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()
