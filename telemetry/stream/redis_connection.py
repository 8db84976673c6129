"""One bare connection to Redis, and everything that this project knows of the Redis client.

Invariants:

- After any `StreamError` nothing is sent again on the same connection, and no connection comes back by itself.
- No password, and no address that may hold one, is part of any message.

This is the only file that imports redis. It uses one bare connection and the wire's own reply shapes (RESP2), because a
client that reconnects or retries on its own would break the first invariant.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from telemetry.errors import RedisUnfitError, StreamAwayError, StreamError
from telemetry.stream.redis_refusals import meaning

# What an address may say besides where Redis is and how TLS is to be spoken; all else is a matter of ours.
_OPTIONS: Final = frozenset({"host", "port", "path", "db", "username", "password", "client_name", "socket_keepalive"})
_TLS_OPTIONS: Final = frozenset(name for name in signature(SSLConnection).parameters if name.startswith("ssl_"))
_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_READ_SIZE_BYTES = 256 * 1024
_MOST_PATIENT = 8

Argument: TypeAlias = str | bytes | int | float
Command: TypeAlias = Sequence[Argument]


class Refusal(NamedTuple):
    """An error reply, as Redis worded it: a code such as OOM or NOPERM first."""

    text: str


class RedisConnection:
    """One connection at a time.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        timeout_s: How long an answer may take, blocking time aside, before the connection is dropped; after one that
            took longer, up to eight times as long, until answers are quick again.

    Attributes:
        address: Where that is, without credentials.

    Raises:
        StreamError: The address is not one of Redis.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        self._connection_class, self._options = _read_address(url)
        self.address = _where(self._options)
        self._timeout_s = timeout_s
        self._deadline_s = timeout_s
        self._connection: AbstractConnection | None = None

    def __repr__(self) -> str:
        return f"<RedisConnection {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    async def open(self) -> None:
        """Drop whatever connection there is and make a new one.

        Raises:
            StreamError: It cannot be made.
        """
        await self.close()
        connection = self._make()
        try:
            async with asyncio.timeout(self._timeout_s):
                if isinstance(connection, SSLConnection):
                    # It reads files, anew for each connection: a certificate may have been renewed.
                    await asyncio.to_thread(connection.ssl_context.get)
                # connect() itself is not annotated; this is the part of it that has no retries.
                await connection.connect_check_health(check_health=False, retry_socket_connect=False)
        except TimeoutError:
            await _drop(connection)
            raise StreamAwayError(f"Redis did not answer within {self._timeout_s:g} s") from None
        except (AuthenticationError, ResponseError) as error:
            await _drop(connection)
            raise RedisUnfitError(f"it refuses the login: {_worded(error).rstrip('.')}") from None
        except (RedisError, OSError) as error:
            await _drop(connection)
            raise StreamAwayError(f"Redis cannot be reached: {str(error).rstrip('.')}") from None
        except BaseException:
            await _drop(connection)
            raise
        self._connection = connection

    def _make(self) -> AbstractConnection:
        return self._connection_class(
            **self._options,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            # The deadline around each exchange is the only one.
            socket_timeout=None,
            socket_connect_timeout=self._timeout_s,
            socket_read_size=_READ_SIZE_BYTES,
            driver_info=None,
        )

    async def close(self) -> None:
        """Drop the connection; never raises."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await _drop(connection)

    async def exchange(self, commands: Sequence[Command], *, extra_s: float = 0.0) -> list[Any]:
        """Send commands and read one reply for each.

        Args:
            commands: What to send, at once.
            extra_s: How long the commands themselves wait.

        Returns:
            The replies in their order; an error reply is a `Refusal`.

        Raises:
            StreamAwayError: There is no connection, it broke, or the answers took too long.
            RedisUnfitError: Redis asks for a login.
        """
        connection = self._connection
        if connection is None or not connection.is_connected:
            raise StreamAwayError("there is no connection to Redis")
        packed = [chunk for command in commands for chunk in connection.pack_command(*command)]
        replies: list[Any] = []
        deadline_s = self._deadline_s + extra_s
        started_s = time.monotonic()
        try:
            async with asyncio.timeout(deadline_s):
                await connection.send_packed_command(packed, check_health=False)
                for _ in commands:
                    try:
                        replies.append(await connection.read_response())
                    except ResponseError as error:
                        replies.append(Refusal(_worded(error)))
        except TimeoutError:
            await self.close()
            # Perhaps the link is only slow: one that never got the time for a large entry would never get past it.
            self._deadline_s = min(2 * self._deadline_s, _MOST_PATIENT * self._timeout_s)
            raise StreamAwayError(f"Redis did not answer within {deadline_s:g} s") from None
        except AuthenticationError as error:
            # The client drops the connection over this one.
            await self.close()
            raise RedisUnfitError(meaning(_worded(error)).sentence) from None
        except (RedisError, OSError) as error:
            await self.close()
            raise StreamAwayError(f"the connection to Redis broke: {str(error).rstrip('.')}") from None
        except BaseException:
            # Cancelled between a command and its reply: the next caller must never read this reply.
            await self.close()
            raise
        if time.monotonic() - started_s - extra_s < self._timeout_s / 2:
            self._deadline_s = self._timeout_s
        return replies


async def _drop(connection: AbstractConnection) -> None:
    try:
        await connection.disconnect(nowait=True)
    except (RedisError, OSError):
        # It is gone either way.
        return


def _read_address(url: str) -> tuple[type[AbstractConnection], dict[str, Any]]:
    """Take an address apart; what is wrong with it is said without repeating it, for it may hold a password."""
    try:
        options: dict[str, Any] = dict(parse_url(url))
        parts = urlsplit(url)
    except ValueError:
        raise StreamError(
            "the Redis address is not a redis://, rediss:// or unix:// URL (Sentinel and Cluster are not supported)"
        ) from None
    connection_class: type[AbstractConnection] = options.pop("connection_class", Connection)
    if parts.scheme == "unix" and not options.get("path"):
        raise StreamError("the Redis address unix:// names no socket")
    if parts.scheme != "unix" and not parts.path.removeprefix("/").isdecimal() and parts.path not in {"", "/"}:
        raise StreamError("the Redis address ends in something that is not the number of a database")
    for name in options:
        if name in _TLS_OPTIONS:
            if parts.scheme != "rediss":
                raise StreamError(f"the Redis address has {name}, which only rediss:// takes")
        elif name not in _OPTIONS:
            raise StreamError(f"the Redis address has {name}, which Recollect decides itself or does not know")
    try:
        made = connection_class(**options)
        if isinstance(made, SSLConnection):
            made.ssl_context.get()
    except (TypeError, ValueError, RedisError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        files = "".join(f", {name} is {options[name]}" for name in _FILES if name in options)
        raise StreamError(f"the TLS options of the Redis address cannot be used: {reason}{files}") from None
    return connection_class, options


def _where(options: Mapping[str, Any]) -> str:
    if "path" in options:
        return str(options["path"])
    host = options.get("host", "localhost")
    where = f"[{host}]" if ":" in host else host
    return f"{where}:{options.get('port', 6379)}/{options.get('db', 0)}"


def _worded(error: ResponseError | AuthenticationError) -> str:
    """Put an error's code, which the client takes off, before its text again."""
    code, text = error.status_code, str(error)
    return text if code is None or text.startswith(code) else f"{code} {text}"
