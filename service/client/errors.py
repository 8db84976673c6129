"""Every error of the client, declared once.

::

    ClientError
    ├── ConnectionFailed      no answer: the connection could not be made, or broke
    ├── DeadlineExceeded      no answer in time
    ├── BadAnswer             an answer that is not of this API
    └── Refused               an answer with an error; has the problem (RFC 9457)
        ├── Invalid           400, 413, 414, 415, 422
        ├── Unauthorized      401, 403
        ├── NotFound          404
        ├── TooManyRequests   429
        └── Unavailable       502, 503, 504
"""

from typing import Final

from service.client.answers import FieldError


class ClientError(Exception):
    """The base class; the text is one sentence."""


class ConnectionFailed(ClientError):
    """No answer came: the connection could not be made, or it broke, also at the second attempt."""


class DeadlineExceeded(ClientError):
    """No answer came before the deadline. What was sent may have been accepted."""


class BadAnswer(ClientError):
    """An answer is not of this API; another server may be at this address."""


class Refused(ClientError):
    """The service answered with an error.

    Attributes:
        status: The HTTP status.
        type: The kind of error, stable for programs, such as "/problems/invalid".
        detail: What is wrong, for people.
        errors: The bad fields of a request with wrong content.
        retry_after_s: Seconds after which another attempt may succeed; None if the answer does not say.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        errors: tuple[FieldError, ...],
        retry_after_s: float | None,
    ) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.type = kind
        self.detail = detail
        self.errors = errors
        self.retry_after_s = retry_after_s


class Invalid(Refused):
    """The request is wrong, and will be at every attempt."""


class Unauthorized(Refused):
    """There is no API key, it is not valid, or it lacks the scope of the route."""


class NotFound(Refused):
    """There is no such route, or the model does not know the item."""


class TooManyRequests(Refused):
    """This client exceeds its rate."""


class Unavailable(Refused):
    """The service cannot answer at the moment; it is safe to try again, with the same event ids."""


_BY_STATUS: Final[dict[int, type[Refused]]] = {
    **dict.fromkeys((400, 413, 414, 415, 422), Invalid),
    **dict.fromkeys((401, 403), Unauthorized),
    404: NotFound,
    429: TooManyRequests,
    **dict.fromkeys((502, 503, 504), Unavailable),
}


def refusal_of(status: int) -> type[Refused]:
    """Return the class of the error for a status."""
    return _BY_STATUS.get(status, Refused)
