"""One bare connection to Redis: the only file that imports the Redis client.

Invariants:

- After any `StreamError` nothing is sent on the same connection, and no connection is made again by itself. Hence a
  bare connection with the wire's own reply shapes (RESP2): a client that reconnects or retries would break this.
- No password, and no address that may hold one, is part of any message.
"""

import asyncio
import copy
import time
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from telemetry.errors import RedisUnfitError, StreamAwayError, StreamError
from telemetry.stream.redis_refusals import refusal_meaning

# The options of an address besides those of TLS; everything else is set here.
_OPTIONS: Final = frozenset({"host", "port", "path", "db", "username", "password", "client_name", "socket_keepalive"})
_TLS_OPTIONS: Final = frozenset(name for name in signature(SSLConnection).parameters if name.startswith("ssl_"))
_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_READ_SIZE_BYTES = 256 * 1024
_MOST_PATIENCE = 8

Argument: TypeAlias = str | bytes | int | float
Command: TypeAlias = Sequence[Argument]


class Refusal(NamedTuple):
    """The text of an error reply; it begins with a code such as OOM or NOPERM."""

    text: str


class RedisConnection:
    """One connection at a time.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        timeout_s: How long an answer may take, besides blocking time, before the connection is dropped. After a slow
            answer it is doubled, up to eight times, until answers are quick again.

    Attributes:
        address: Host, port and database, or the socket's path; without credentials.

    Raises:
        StreamError: The address is invalid.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        self._connection_class, self._options = _parse_address(url)
        self.address = _address_without_credentials(self._options)
        self._timeout_s = timeout_s
        self._deadline_s = timeout_s
        self._connection: AbstractConnection | None = None

    def __repr__(self) -> str:
        return f"<RedisConnection {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    @property
    def host(self) -> str:
        """The host; empty for a socket."""
        return "" if "path" in self._options else str(self._options.get("host", "localhost"))

    def to(self, host: str, port: int) -> "RedisConnection":
        """Return a closed connection to another address, with the same user and options."""
        made = copy.copy(self)
        options = {name: value for name, value in self._options.items() if name != "path"}
        made._options = {**options, "host": host, "port": port}  # noqa: SLF001 - an object of this class
        if self._connection_class is UnixDomainSocketConnection:
            made._connection_class = Connection  # noqa: SLF001
        made.address = _address_without_credentials(made._options)  # noqa: SLF001
        made._connection, made._deadline_s = None, self._timeout_s  # noqa: SLF001
        return made

    async def open(self) -> None:
        """Drop any connection and make a new one.

        Raises:
            StreamError: The connection cannot be made.
        """
        await self.close()
        connection = self._make()
        try:
            async with asyncio.timeout(self._timeout_s):
                if isinstance(connection, SSLConnection):
                    # It reads the files for every connection: a certificate may have been renewed.
                    await asyncio.to_thread(connection.ssl_context.get)
                # The part of `connect` that does not retry.
                await connection.connect_check_health(check_health=False, retry_socket_connect=False)
        except TimeoutError:
            await _drop(connection)
            raise StreamAwayError(f"Redis did not answer within {self._timeout_s:g} s.") from None
        except (AuthenticationError, ResponseError) as error:
            await _drop(connection)
            raise RedisUnfitError(f"it refuses the login: {_text_with_code(error).rstrip('.')}") from None
        except (RedisError, OSError) as error:
            await _drop(connection)
            raise StreamAwayError(f"Redis cannot be reached: {str(error).rstrip('.')}.") from None
        except BaseException:
            await _drop(connection)
            raise
        self._connection = connection

    def _make(self) -> AbstractConnection:
        return self._connection_class(
            **self._options,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            # Each exchange has a deadline of its own.
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
        """Send commands together and return their replies in order; an error reply is a `Refusal`.

        The commands themselves may block for `extra_s`.

        Raises:
            StreamAwayError: There is no connection, it broke, or the answers took too long.
            RedisUnfitError: Redis asks for a login.
        """
        connection = self._connection
        if connection is None or not connection.is_connected:
            raise StreamAwayError("There is no connection to Redis.")
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
                        replies.append(Refusal(_text_with_code(error)))
        except TimeoutError:
            await self.close()
            # The link may only be slow: with the same deadline it would never carry a large entry.
            self._deadline_s = min(2 * self._deadline_s, _MOST_PATIENCE * self._timeout_s)
            raise StreamAwayError(f"Redis did not answer within {deadline_s:g} s.") from None
        except AuthenticationError as error:
            # The client drops the connection after this error.
            await self.close()
            raise RedisUnfitError(refusal_meaning(_text_with_code(error)).clause) from None
        except (RedisError, OSError) as error:
            await self.close()
            raise StreamAwayError(f"The connection to Redis broke: {str(error).rstrip('.')}.") from None
        except BaseException:
            # Cancelled between a command and its reply, which the next caller must not read.
            await self.close()
            raise
        if time.monotonic() - started_s - extra_s < self._timeout_s / 2:
            self._deadline_s = self._timeout_s
        return replies


async def _drop(connection: AbstractConnection) -> None:
    try:
        await connection.disconnect(nowait=True)
    except (RedisError, OSError):
        # The connection is gone either way.
        return


def _parse_address(url: str) -> tuple[type[AbstractConnection], dict[str, Any]]:
    """Parse an address; errors do not repeat it, because it may hold a password."""
    try:
        options: dict[str, Any] = dict(parse_url(url))
        parts = urlsplit(url)
    except ValueError:
        raise StreamError(
            "The Redis address is not a redis://, rediss:// or unix:// URL. Redis Sentinel is not supported."
        ) from None
    connection_class: type[AbstractConnection] = options.pop("connection_class", Connection)
    if parts.scheme == "unix" and not options.get("path"):
        raise StreamError("The Redis address unix:// names no socket.")
    if parts.scheme != "unix" and not parts.path.removeprefix("/").isdecimal() and parts.path not in {"", "/"}:
        raise StreamError("The path of the Redis address is not the number of a database.")
    for name in options:
        if name in _TLS_OPTIONS:
            if parts.scheme != "rediss":
                raise StreamError(f"The Redis address has {name}, which only rediss:// takes.")
        elif name not in _OPTIONS:
            raise StreamError(
                f"The Redis address has {name}, an option that Recollect sets itself or does not support."
            )
    try:
        made = connection_class(**options)
        if isinstance(made, SSLConnection):
            made.ssl_context.get()
    except (TypeError, ValueError, RedisError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        files = "".join(f", {name} is {options[name]}" for name in _FILES if name in options)
        raise StreamError(f"The TLS options of the Redis address cannot be used: {reason}{files}.") from None
    return connection_class, options


def _address_without_credentials(options: Mapping[str, Any]) -> str:
    if "path" in options:
        return str(options["path"])
    host = options.get("host", "localhost")
    where = f"[{host}]" if ":" in host else host
    return f"{where}:{options.get('port', 6379)}/{options.get('db', 0)}"


def _text_with_code(error: ResponseError | AuthenticationError) -> str:
    """Return an error's text with its code in front, which the client removes."""
    code, text = error.status_code, str(error)
    return text if code is None or text.startswith(code) else f"{code} {text}"
