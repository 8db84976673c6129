"""A few commands to a Redis, over a connection each: the drill changes settings and keys, a handful of times.

The invariant: an error reply is raised, never returned. It speaks the part of RESP2 that these commands need, because
`telemetry.stream.redis_connection` alone imports the Redis client.
"""

import asyncio
from pathlib import Path

from service.errors import RunError

_TIMEOUT_S = 5.0

Reply = str | int | None | list["Reply"]


async def call(where: int | Path, *words: str, timeout_s: float = _TIMEOUT_S) -> Reply:
    """Send one command to a Redis and return its reply.

    Args:
        where: Its port on 127.0.0.1, or its socket.
        words: The command.
        timeout_s: How long to wait.

    Raises:
        RunError: It cannot be reached, does not answer in time, or answers with an error.
    """
    encoded = [word.encode() for word in words]
    request = b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await connect(where)
            try:
                writer.write(request)
                return await _read(reader)
            finally:
                writer.transport.abort()
    except (OSError, EOFError, TimeoutError) as error:
        raise RunError(f"Redis on {where} did not answer {words[0]}: {str(error) or 'no answer in time'}.") from None


async def connect(where: int | Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a port of 127.0.0.1, or to a socket."""
    if isinstance(where, int):
        return await asyncio.open_connection("127.0.0.1", where)
    return await asyncio.open_unix_connection(where)


async def _read(reader: asyncio.StreamReader) -> Reply:
    line = (await reader.readuntil(b"\r\n"))[:-2].decode()
    kind, rest = line[:1], line[1:]
    if kind == "-":
        raise RunError(f"Redis answered with an error: {rest}.")
    if kind == "+":
        return rest
    if kind == ":":
        return int(rest)
    if kind == "$":
        if int(rest) < 0:
            return None
        return (await reader.readexactly(int(rest) + 2))[:-2].decode("utf-8", "replace")
    if kind == "*":
        return [await _read(reader) for _ in range(int(rest))]
    raise RunError(f"Redis answered with something that is not RESP: {line[:60]!r}.")
