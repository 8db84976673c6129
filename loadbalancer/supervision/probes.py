"""Probes of readiness and liveness over a part's own port or socket.

They use sockets and nothing else: the balancer needs the standard library alone, so no HTTP or Redis client is here.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from loadbalancer.topology import address

_Connecting: TypeAlias = Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]

_TIMEOUT_S = 1.0
_INTERVAL_S = 0.02
_MAX_INTERVAL_S = 0.2
_MAX_ANSWER_BYTES = 4096
_MAX_REASON_CHARACTERS = 300


class ReportedReason(str):
    """A reason from the body of the part's answer. A part that answers is alive."""

    __slots__ = ()


class Probe(Protocol):
    """A readiness probe."""

    async def not_ready_reason(self) -> str | None:
        """Probe once; return why the part is not ready, or None if it is."""
        ...


@dataclass(frozen=True)
class HttpProbe:
    """Ready if a GET is answered with 200, alive if it is answered at all."""

    host: str
    port: int
    path: str

    async def not_ready_reason(self) -> str | None:
        """Probe once; return why the part is not ready, or None if it is."""
        try:
            answer = await _exchange(self._connect(), self._request())
        except (OSError, TimeoutError):
            return f"nothing answers on port {self.port}"
        head, _, body = answer.partition(b"\r\n\r\n")
        status = head[:32].split(b" ")[1:2]
        if status == [b"200"]:
            return None
        lines = body.decode(errors="replace").strip().splitlines()
        reason = f"{self.path} answers {status[0].decode(errors='replace') if status else 'nothing'}"
        return ReportedReason(f"{reason} ({lines[0][:_MAX_REASON_CHARACTERS]})") if lines else reason

    async def times_out(self) -> bool:
        """Probe once; return whether a second passes without a whole answer, as with a frozen process.

        A refused or closed connection is no timeout. nginx without free connections closes new ones, and killing it
        would cut off the clients that it serves.
        """
        try:
            await _exchange(self._connect(), self._request())
        except TimeoutError:
            return True
        except OSError:
            return False
        return False

    def _connect(self) -> _Connecting:
        return asyncio.open_connection(self.host, self.port, limit=_MAX_ANSWER_BYTES)

    def _request(self) -> bytes:
        host = address(self.host, self.port)
        return f"GET {self.path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


@dataclass(frozen=True)
class RedisProbe:
    """Ready if PING is answered with PONG. While Redis loads its file it answers with an error, LOADING."""

    socket: Path

    async def not_ready_reason(self) -> str | None:
        """Probe once; return why Redis is not ready, or None if it is."""
        try:
            connecting = asyncio.open_unix_connection(self.socket, limit=_MAX_ANSWER_BYTES)
            answer = await _exchange(connecting, b"PING\r\nQUIT\r\n")
        except (OSError, TimeoutError):
            return f"nothing answers on {self.socket}"
        return None if answer.startswith(b"+PONG") else answer[:100].decode(errors="replace").strip()


async def until_ready(probe: Probe, report: Callable[[ReportedReason], None] = lambda _reason: None) -> None:
    """Probe until the part is ready, with growing pauses; pass each `ReportedReason` to `report`."""
    interval_s = _INTERVAL_S
    while (reason := await probe.not_ready_reason()) is not None:
        if isinstance(reason, ReportedReason):
            report(reason)
        await asyncio.sleep(interval_s)
        interval_s = min(interval_s * 1.5, _MAX_INTERVAL_S)


async def _exchange(connecting: _Connecting, request: bytes) -> bytes:
    async with asyncio.timeout(_TIMEOUT_S):
        reader, writer = await connecting
        try:
            writer.write(request)
            await writer.drain()
            answer = b""
            while len(answer) < _MAX_ANSWER_BYTES and (piece := await reader.read(_MAX_ANSWER_BYTES)):
                answer += piece
            return answer
        finally:
            writer.transport.abort()
