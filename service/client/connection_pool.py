"""Kept-alive connections for threads; each carries one request at a time.

Invariants: an answer belongs to the request it is returned for. A connection that broke, that was abandoned at a
deadline, or that the server has closed meanwhile is not used again. At most `max_idle` connections wait.
"""

import http.client
import select
import ssl
import threading
import time
from typing import Any

from service.client.address import Address
from service.client.calls import Call
from service.client.conversation import Answer, Attempt, Broken, Outcome, TimedOut

_CHUNK_BYTES = 1 << 16


class ConnectionPool:
    """Connections to one service; any number of threads may use it.

    Args:
        address: The service.
        context: How its certificate is checked.
        max_idle: Connections that are kept for later requests.
    """

    def __init__(self, address: Address, context: ssl.SSLContext | None, max_idle: int) -> None:
        self._address = address
        self._context = context if context is not None or not address.is_tls else ssl.create_default_context()
        self._max_idle = max_idle
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def exchange(self, call: Call[Any], attempt: Attempt) -> Outcome:
        """Send a call once and return what came of it."""
        ends_s = time.monotonic() + attempt.timeout_s
        connection = self._take(attempt)
        try:
            answer, is_reusable = self._answer(connection, call, ends_s)
        except TimeoutError:
            connection.close()
            # They may lead to the same dead machine.
            self._close_idle()
            return TimedOut()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return Broken(str(error) or type(error).__name__)
        except BaseException:
            # A late answer would be read as the next request's.
            connection.close()
            raise
        if is_reusable:
            self._give_back(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Close the waiting connections; those in use close with their answers."""
        with self._lock:
            self._is_closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _answer(self, connection: http.client.HTTPConnection, call: Call[Any], ends_s: float) -> tuple[Answer, bool]:
        if connection.sock is None:
            connection.timeout = _left_s(ends_s)
            connection.connect()
        connection.sock.settimeout(_left_s(ends_s))
        connection.request(call.method, self._address.prefix + call.target, call.body, self._address.headers(call))
        connection.sock.settimeout(_left_s(ends_s))
        response = connection.getresponse()
        # After the headers the response may own the socket, and lends it for the time limits of its parts.
        socket = connection.sock
        body = bytearray()
        while True:
            if socket is not None:
                socket.settimeout(_left_s(ends_s))
            chunk = response.read1(_CHUNK_BYTES)
            if not chunk:
                break
            body += chunk
        # read1 also ends where the connection broke.
        if response.length:
            raise http.client.IncompleteRead(bytes(body), response.length)
        # Python 3.11 leaves a response open whose last byte was read by read1.
        response.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, bytes(body)), not response.will_close

    def _take(self, attempt: Attempt) -> http.client.HTTPConnection:
        while not attempt.is_retry:
            with self._lock:
                # The connection used last has the least chance to have been closed by the server.
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                break
            if _is_open(connection):
                return connection
            connection.close()
        host, port = self._address.host, self._address.port
        if self._address.is_tls:
            return http.client.HTTPSConnection(host, port, context=self._context)
        return http.client.HTTPConnection(host, port)

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self._is_closed and len(self._idle) < self._max_idle:
                self._idle.append(connection)
                return
        connection.close()


def _left_s(ends_s: float) -> float:
    """Return the seconds until a deadline.

    Raises:
        TimeoutError: It has passed.
    """
    left_s = ends_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("The deadline has passed.")
    return left_s


def _is_open(connection: http.client.HTTPConnection) -> bool:
    """Whether a waiting connection can carry a request: the server has neither closed it nor sent anything."""
    if connection.sock is None:
        return False
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return not poll.poll(0)
