"""The feed of live state in Redis: one stream, `<namespace>:live`."""

from typing import Any, Final

from telemetry.batch import Position
from telemetry.errors import BadBatchError, StreamRefusedError
from telemetry.stream.feed_stream import FeedEnds
from telemetry.stream.key_names import DEFAULT_NAMESPACE, KeyNames
from telemetry.stream.redis_connection import Refusal
from telemetry.stream.redis_link import RedisLink
from telemetry.stream.redis_refusals import refusal_meaning

_FIELD: Final = b"data"
_NO_SUCH_KEY: Final = "no such key"
_ALREADY_THERE: Final = "equal or smaller than the target stream top item"
_WRONG_TYPE: Final = "WRONGTYPE "


class RedisFeedStream:
    """A `FeedStream` in Redis; each method as there. `url` and `timeout_s` as in `RedisLink`.

    Raises:
        StreamError: The address or the namespace is invalid.
    """

    def __init__(self, url: str, namespace: str = DEFAULT_NAMESPACE, *, timeout_s: float = 2.0) -> None:
        self._key = KeyNames(namespace).live
        self._connection = RedisLink(url, timeout_s=timeout_s)

    def __repr__(self) -> str:
        return f"<RedisFeedStream {self._key} {'connected' if self._connection.is_open else 'closed'}>"

    async def connect(self) -> None:
        await self._connection.open()

    async def close(self) -> None:
        await self._connection.close()

    async def ends(self) -> FeedEnds | None:
        (reply,) = await self._connection.exchange([("XINFO", "STREAM", self._key)])
        if _has(reply, _NO_SUCH_KEY) or _has(reply, _WRONG_TYPE):
            return None
        _raise_if_refused(reply)
        fields = dict(zip(reply[::2], reply[1::2], strict=True))
        first = fields[b"first-entry"]
        return FeedEnds(
            _position(fields[b"last-generated-id"]), None if first is None else _position(first[0]), fields[b"length"]
        )

    async def append(self, position: Position, data: bytes, *, first_kept: int) -> bool:
        oldest = f"{position.epoch}-{first_kept}"
        command = ("XADD", self._key, "NOMKSTREAM", "MINID", "=", oldest, str(position), _FIELD, data)
        (reply,) = await self._connection.exchange([command])
        if _has(reply, _ALREADY_THERE) or _has(reply, _WRONG_TYPE):
            return False
        _raise_if_refused(reply)
        return reply is not None

    async def begin(self, generation: int, data: bytes) -> None:
        first = f"{generation}-1"
        command = ("XADD", self._key, "MINID", "=", first, first, _FIELD, data)
        (reply,) = await self._connection.exchange([command])
        if _has(reply, _ALREADY_THERE) or _has(reply, _WRONG_TYPE):
            _, reply = await self._connection.exchange([("UNLINK", self._key), command])
        _raise_if_refused(reply)

    async def read(self, after: Position, *, max_entries: int, block_ms: int) -> list[tuple[Position, bytes]]:
        wait = ("BLOCK", block_ms) if block_ms > 0 else ()
        command = ("XREAD", "COUNT", max_entries, *wait, "STREAMS", self._key, str(after))
        (reply,) = await self._connection.exchange([command], extra_s=block_ms / 1000)
        if _has(reply, _WRONG_TYPE) or _has(reply, "UNBLOCKED"):
            return []
        _raise_if_refused(reply)
        if reply is None:
            return []
        ((_, items),) = reply
        # An entry of another client has no such field, and no bytes that could be decoded.
        return [
            (_position(entry_id), dict(zip(fields[::2], fields[1::2], strict=True)).get(_FIELD, b""))
            for entry_id, fields in items
        ]


def _position(entry_id: bytes) -> Position:
    try:
        return Position.parse(entry_id.decode())
    except BadBatchError as error:
        raise StreamRefusedError(str(error)) from None


def _has(reply: Any, text: str) -> bool:
    return isinstance(reply, Refusal) and text in reply.text


def _raise_if_refused(reply: Any) -> None:
    if isinstance(reply, Refusal):
        raise StreamRefusedError(f"Redis refused: {refusal_meaning(reply.text).clause.rstrip('.')}.")
