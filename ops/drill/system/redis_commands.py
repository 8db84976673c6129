"""Single commands to a Redis, each over a connection of its own. An error reply is raised, never returned."""

from pathlib import Path
from typing import Any

from loadbalancer import redis_conf
from service.errors import RunError
from telemetry.errors import StreamError
from telemetry.stream.redis_connection import RedisConnection, Refusal

_TIMEOUT_S = 5.0

Reply = str | int | None | list["Reply"]


def url_of(where: int | Path) -> str:
    """Return the RECOLLECT_REDIS_URL of a Redis on a port of 127.0.0.1 or on a socket."""
    return f"redis://127.0.0.1:{where}/0" if isinstance(where, int) else redis_conf.url(where)


async def call(where: int | Path, *words: str, timeout_s: float = _TIMEOUT_S) -> Reply:
    """Send one command to the Redis on a port of 127.0.0.1 or on a socket, and return its reply.

    Raises:
        RunError: Redis cannot be reached, does not answer in time, or answers with an error.
    """
    connection = RedisConnection(url_of(where), timeout_s=timeout_s)
    try:
        await connection.open()
        (reply,) = await connection.exchange([words])
    except StreamError as error:
        raise RunError(f"Redis on {where} did not answer {words[0]}: {str(error).rstrip('.')}.") from None
    finally:
        await connection.close()
    if isinstance(reply, Refusal):
        raise RunError(f"Redis answered {words[0]} with an error: {reply.text}.")
    return _text(reply)


def _text(reply: Any) -> Reply:
    if isinstance(reply, list):
        return [_text(item) for item in reply]
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
