"""Asks a Redis for a sign of life and its version, with nothing but a socket.

The invariant: PING and INFO are all it sends besides AUTH, and no password is ever part of what it returns. It speaks
the few lines of RESP that this takes, because `telemetry.connection` alone imports the Redis client.
"""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

if TYPE_CHECKING:
    from io import BufferedRWPair

_TIMEOUT_S = 3.0
_DEFAULT_PORT = 6379


@dataclass(frozen=True)
class RedisState:
    """What a Redis said of itself.

    Attributes:
        where: its address, without credentials.
        complaint: why it cannot be used, None if it answers.
        version: None if it does not tell.
    """

    where: str
    complaint: str | None = None
    version: tuple[int, ...] | None = None


def ask(url: str) -> RedisState:
    """Connect, log in if the URL has credentials, and ask.

    Args:
        url: redis://, rediss:// (TLS) or unix://, as RECOLLECT_REDIS_URL has it.
    """
    try:
        parts = urlsplit(url)
        where = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or _DEFAULT_PORT}"
    except ValueError:
        return RedisState("a URL that cannot be read", "its port is no number")
    if parts.scheme not in {"redis", "rediss", "unix"}:
        return RedisState(where, "the URL must begin with redis://, rediss:// or unix://")
    try:
        with _connect(parts) as connection, connection.makefile("rwb") as stream:
            return _converse(stream, parts, where)
    except (OSError, ValueError) as error:
        return RedisState(where, f"it does not answer: {error}")


def _connect(parts: SplitResult) -> socket.socket:
    if parts.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(parts.path)
        except OSError:
            connection.close()
            raise
        return connection
    host = parts.hostname or "localhost"
    connection = socket.create_connection((host, parts.port or _DEFAULT_PORT), timeout=_TIMEOUT_S)
    if parts.scheme == "redis":
        return connection
    try:
        return ssl.create_default_context().wrap_socket(connection, server_hostname=host)
    except OSError:
        connection.close()
        raise


def _converse(stream: BufferedRWPair, parts: SplitResult, where: str) -> RedisState:
    if parts.password is not None:
        credentials = [unquote(text) for text in (parts.username, parts.password) if text]
        answer = _call(stream, "AUTH", *credentials)
        if answer.startswith("-"):
            return RedisState(where, f"it refuses the login: {answer[1:]}")
    answer = _call(stream, "PING")
    if answer != "+PONG":
        return RedisState(where, f"it answers PING with {answer[:100]!r}")
    version = re.search(r"^redis_version:(\d+(?:\.\d+)*)", _call(stream, "INFO", "server"), re.MULTILINE)
    return RedisState(where, version=tuple(map(int, version[1].split("."))) if version else None)


def _call(stream: BufferedRWPair, *words: str) -> str:
    """Send one command and return its reply: a status or error with its sign, or the text of a bulk string."""
    encoded = [word.encode() for word in words]
    stream.write(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded))
    stream.flush()
    line = stream.readline().decode("utf-8", "replace").rstrip("\r\n")
    if not line:
        raise ConnectionError("the connection was closed")
    if not line.startswith("$"):
        return line
    size_bytes = int(line[1:])
    return stream.read(size_bytes + 2)[:-2].decode("utf-8", "replace")
