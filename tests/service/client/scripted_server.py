"""A server that does with each request what a script says: answers, breaks off, or stays silent."""

import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Self

CLOSE = "close"
"""Close the connection without an answer."""
SILENCE = "silence"
"""Never answer."""


def answer(status: int, body: str, headers: str = "") -> str:
    """Return an answer as text."""
    return f"HTTP/1.1 {status} Reason\r\n{headers}Content-Length: {len(body.encode())}\r\n\r\n{body}"


@dataclass
class ScriptedServer:
    """Serves one request after the other, on any number of connections.

    Attributes:
        script: An answer as text, `CLOSE` or `SILENCE` for each request, in order. After an answer that is not whole
            the connection closes.
        requests: The heads and bodies received.
        received_s: When each of them was, by the monotonic clock.
        context: Speaks TLS with it, if given.
        n_connections: The number of connections accepted.
    """

    script: list[str]
    context: ssl.SSLContext | None = None
    requests: list[str] = field(default_factory=list)
    received_s: list[float] = field(default_factory=list)
    n_connections: int = 0

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "http" if self.context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.n_connections += 1
            if self.context is not None:
                try:
                    connection = self.context.wrap_socket(connection, server_side=True)
                except OSError:
                    continue
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        received = b""
        while True:
            try:
                while b"\r\n\r\n" not in received:
                    if not (more := connection.recv(65536)):
                        return
                    received += more
                head, _, received = received.partition(b"\r\n\r\n")
                lengths = [
                    int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-l")
                ]
                while len(received) < sum(lengths):
                    received += connection.recv(65536)
            except OSError:
                return
            body, received = received[: sum(lengths)], received[sum(lengths) :]
            self.received_s.append(time.monotonic())
            self.requests.append((head + b"\r\n\r\n" + body).decode())
            what = self.script.pop(0) if self.script else CLOSE
            if what == SILENCE:
                return
            if what != CLOSE:
                connection.sendall(what.encode())
                length = what.partition("Content-Length: ")[2].partition("\r\n")[0]
                if length and len(what.partition("\r\n\r\n")[2].encode()) == int(length):
                    continue
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
            return
