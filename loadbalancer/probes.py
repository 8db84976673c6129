"""Asks a part whether it is ready, over its own port, with nothing but sockets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from loadbalancer.topology import address

_ATTEMPT_TIMEOUT_S = 1.0
_INTERVAL_S = 0.02
_INTERVAL_MAX_S = 0.2
_ANSWER_LIMIT_BYTES = 4096


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
            answer = await _ask(self.host, self.port, self._request())
        except (OSError, TimeoutError):
            return f"nothing answers on port {self.port}"
        head, _, body = answer.partition(b"\r\n\r\n")
        status = head[:32].split(b" ")[1:2]
        if status == [b"200"]:
            return None
        said = body.decode(errors="replace").strip().splitlines()
        return f"{self.path} answers {status[0].decode(errors='replace') if status else 'nothing'}" + (
            f" ({said[0][:200]})" if said else ""
        )

    async def silent(self) -> bool:
        """Ask once; return whether a second passed without a whole answer, as from a frozen process.

        A refusal or a closed connection is no silence: somebody, or the kernel for nobody, gave it at once. nginx out
        of connections closes new ones, and killing it would cut off all whom it serves.
        """
        try:
            await _ask(self.host, self.port, self._request())
        except TimeoutError:
            return True
        except OSError:
            return False
        return False

    def _request(self) -> bytes:
        where = address(self.host, self.port)
        return f"GET {self.path} HTTP/1.1\r\nHost: {where}\r\nConnection: close\r\n\r\n".encode()


@dataclass(frozen=True)
class RedisProbe:
    """Ready when PING is answered; while Redis loads its file it answers LOADING."""

    host: str
    port: int

    async def complaint(self) -> str | None:
        """Ask once; return None if the part is ready, else why not, in a few words."""
        try:
            answer = await _ask(self.host, self.port, b"PING\r\nQUIT\r\n")
        except (OSError, TimeoutError):
            return f"nothing answers on port {self.port}"
        return None if answer.startswith(b"+PONG") else answer[:100].decode(errors="replace").strip()


async def until_ready(probe: Probe) -> None:
    """Ask again and again until the part is ready; cancel it to give up."""
    interval_s = _INTERVAL_S
    while await probe.complaint() is not None:
        await asyncio.sleep(interval_s)
        interval_s = min(interval_s * 1.5, _INTERVAL_MAX_S)


async def _ask(host: str, port: int, request: bytes) -> bytes:
    async with asyncio.timeout(_ATTEMPT_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(host, port, limit=_ANSWER_LIMIT_BYTES)
        try:
            writer.write(request)
            await writer.drain()
            answer = b""
            while len(answer) < _ANSWER_LIMIT_BYTES and (piece := await reader.read(_ANSWER_LIMIT_BYTES)):
                answer += piece
            return answer
        finally:
            writer.transport.abort()
