"""One bare connection to Redis, and everything that this project knows of the Redis client.

Invariants:

- After any `StreamError` nothing is sent again on the same connection, and no connection comes back by itself.
- No password, and no address that may hold one, is part of any message.

This is the only file that imports redis. It uses one bare connection and the wire's own reply shapes (RESP2), because a
client that reconnects or retries on its own would break the first invariant.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from telemetry.errors import StreamAwayError, StreamError

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

    Raises:
        StreamError: The address is not one of Redis.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        try:
            options: dict[str, Any] = dict(parse_url(url))
        except ValueError:
            # The address may hold a password, so it is not repeated.
            raise StreamError("the Redis address is not a redis://, rediss:// or unix:// URL") from None
        self._connection_class: type[AbstractConnection] = options.pop("connection_class", Connection)
        self._options = options
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
        connection = self._connection_class(
            **self._options,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            # The deadline around each exchange is the only one.
            socket_timeout=None,
            socket_connect_timeout=self._timeout_s,
            socket_read_size=_READ_SIZE_BYTES,
            driver_info=None,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                # connect() itself is not annotated; this is the part of it that has no retries.
                await connection.connect_check_health(check_health=False, retry_socket_connect=False)
        except TimeoutError:
            await _drop(connection)
            raise StreamAwayError(f"Redis did not answer within {self._timeout_s:g} s") from None
        except (RedisError, OSError) as error:
            await _drop(connection)
            raise StreamAwayError(f"Redis cannot be reached: {error}") from None
        except BaseException:
            await _drop(connection)
            raise
        self._connection = connection

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
        except (RedisError, OSError) as error:
            await self.close()
            raise StreamAwayError(f"the connection to Redis broke: {error}") from None
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


def _worded(error: ResponseError) -> str:
    """Put an error's code, which the client takes off, before its text again."""
    code, text = error.status_code, str(error)
    return text if code is None or text.startswith(code) else f"{code} {text}"
