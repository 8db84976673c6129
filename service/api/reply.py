"""A 200 answer that is written in one buffer, head and body, without a look-up per header.

Invariant: a client receives byte for byte what `web.Response` would have sent with `COMMON_HEADERS`. Special cases
(HTTP/1.0, a connection to be closed, further headers, a slow reader) are left to aiohttp.
"""

import asyncio
from typing import Final

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

# For every answer without its own: answers concern one user at one time, and are neither pages nor scripts.
COMMON_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_COMMON: Final = "".join(f"{name}: {value}\r\n" for name, value in COMMON_HEADERS.items())
_HEAD: Final = (
    "HTTP/1.1 200 OK\r\nContent-Type: {}\r\n" + _COMMON + "Content-Length: {}\r\nDate: {}\r\nServer: {}\r\n\r\n"
)


class Reply(web.Response):
    """An answer with status 200; `content_type` is the value of the header, charset included."""

    def __init__(self, body: bytes, content_type: str = "application/json") -> None:
        super().__init__(body=body, headers={"Content-Type": content_type})
        self._bytes = body
        self._content_type_value = content_type
        # Set if the answer is sent in one buffer.
        self._transport: asyncio.WriteTransport | None = None

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection stays open; None before `prepare`. The protocol reads it after the answer."""
        return super().keep_alive if self._transport is None else True

    @property
    def prepared(self) -> bool:
        """Whether `prepare` was called."""
        return self._transport is not None or super().prepared

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Decide whether `write_eof` sends one buffer or leaves the answer to aiohttp; called by aiohttp."""
        if self._transport is not None:
            return None
        transport = request.transport
        if (
            self.keep_alive is None
            and len(self.headers) == 1
            and request.keep_alive
            and request.version == HttpVersion11
            and request.method != "HEAD"
            and transport is not None
            and not transport.get_write_buffer_size()
        ):
            self._transport = transport
            return None
        for name, value in COMMON_HEADERS.items():
            self.headers.setdefault(name, value)
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the answer; called by aiohttp."""
        transport = self._transport
        if transport is None:
            await super().write_eof(data)
            return
        if transport.is_closing():
            raise ConnectionResetError("The client has disconnected.")
        body = self._bytes
        head = _HEAD.format(self._content_type_value, len(body), rfc822_formatted_time(), SERVER_SOFTWARE)
        transport.write(head.encode("ascii") + body)
