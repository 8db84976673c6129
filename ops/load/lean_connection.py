"""A connection for load generators that must not be the limit: of an answer it parses only Content-Length."""

import asyncio
from abc import ABC, abstractmethod
from typing import cast

from service.errors import RunError


class LeanConnection(asyncio.Protocol, ABC):
    """A kept-alive connection with at most one open request; subclasses handle answers."""

    transport: asyncio.Transport | None = None
    _pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    @abstractmethod
    def answered(self, head: bytes) -> None:
        """Handle a complete answer, given its head with the last line break."""

    def data_received(self, data: bytes) -> None:
        """Buffer the data, and hand the head over once the answer is complete."""
        if self._pending:
            data = self._pending + data
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0 or len(data) < head_end + 4 + content_length(data, head_end):
            self._pending = data
            return
        self._pending = b""
        self.answered(data[: head_end + 2])

    def close(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()


def content_length(data: bytes, head_end: int) -> int:
    """Return the length of a body from the head that ends at `head_end`.

    Raises:
        RunError: The head has no Content-Length.
    """
    start = data.find(b"\nContent-Length: ", 0, head_end)
    if start < 0:
        # Header names are case-insensitive, but most servers write this one alike.
        start = data[:head_end].lower().find(b"\ncontent-length: ")
        if start < 0:
            raise RunError("An answer without Content-Length cannot be counted.")
    start += 17
    return int(data[start : data.find(b"\r", start)])
