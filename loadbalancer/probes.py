"""Asks a part whether it is ready, over its own port or socket, with nothing but sockets."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from loadbalancer.topology import address

_Connecting: TypeAlias = Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]

_ATTEMPT_TIMEOUT_S = 1.0
_INTERVAL_S = 0.02
_INTERVAL_MAX_S = 0.2
_ANSWER_LIMIT_BYTES = 4096
_WORDS = 300


class Answered(str):
    """A complaint in the part's own words: it lives, and says why it is not ready."""

    __slots__ = ()


class Probe(Protocol):
    """A question to a part."""

    async def complaint(self) -> str | None:
        """Ask once; return None if the part is ready, else why not, in a few words."""
        ...


@dataclass(frozen=True)
class HttpProbe:
    """Ready when a GET is answered with 200, alive when it is answered with anything."""

    host: str
    port: int
    path: str

    async def complaint(self) -> str | None:
        """Ask once; return None if the part is ready, else why not, in a few words."""
        try:
            answer = await _ask(self._connect(), self._request())
        except (OSError, TimeoutError):
            return f"nothing answers on port {self.port}"
        head, _, body = answer.partition(b"\r\n\r\n")
        status = head[:32].split(b" ")[1:2]
        if status == [b"200"]:
            return None
        said = body.decode(errors="replace").strip().splitlines()
        words = f"{self.path} answers {status[0].decode(errors='replace') if status else 'nothing'}"
        if said:
            return Answered(f"{words} ({said[0][:_WORDS]})")
        return words

    async def silent(self) -> bool:
        """Ask once; return whether a second passed without a whole answer, as from a frozen process.

        A refusal or a closed connection is no silence: somebody, or the kernel for nobody, gave it at once. nginx out
        of connections closes new ones, and killing it would cut off all whom it serves.
        """
        try:
            await _ask(self._connect(), self._request())
        except TimeoutError:
            return True
        except OSError:
            return False
        return False

    def _connect(self) -> _Connecting:
        return asyncio.open_connection(self.host, self.port, limit=_ANSWER_LIMIT_BYTES)

    def _request(self) -> bytes:
        where = address(self.host, self.port)
        return f"GET {self.path} HTTP/1.1\r\nHost: {where}\r\nConnection: close\r\n\r\n".encode()


@dataclass(frozen=True)
class RedisProbe:
    """Ready when PING is answered; while Redis loads its file it answers LOADING."""

    socket: Path

    async def complaint(self) -> str | None:
        """Ask once; return None if the part is ready, else why not, in a few words."""
        try:
            connect = asyncio.open_unix_connection(self.socket, limit=_ANSWER_LIMIT_BYTES)
            answer = await _ask(connect, b"PING\r\nQUIT\r\n")
        except (OSError, TimeoutError):
            return f"nothing answers on {self.socket}"
        return None if answer.startswith(b"+PONG") else answer[:100].decode(errors="replace").strip()


async def until_ready(probe: Probe, told: Callable[[Answered], None] = lambda _complaint: None) -> None:
    """Ask again and again until the part is ready; cancel it to give up.

    Args:
        probe: The question.
        told: Called with each complaint that the part itself made.
    """
    interval_s = _INTERVAL_S
    while (complaint := await probe.complaint()) is not None:
        if isinstance(complaint, Answered):
            told(complaint)
        await asyncio.sleep(interval_s)
        interval_s = min(interval_s * 1.5, _INTERVAL_MAX_S)


async def _ask(connect: _Connecting, request: bytes) -> bytes:
    async with asyncio.timeout(_ATTEMPT_TIMEOUT_S):
        reader, writer = await connect
        try:
            writer.write(request)
            await writer.drain()
            answer = b""
            while len(answer) < _ANSWER_LIMIT_BYTES and (piece := await reader.read(_ANSWER_LIMIT_BYTES)):
                answer += piece
            return answer
        finally:
            writer.transport.abort()
