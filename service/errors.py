"""Every error this package raises, declared once.

::

    RecollectError                      one clear sentence; `exit_code` is what a command ends with
    ├── UsageError                (2)   the command line or a setting is wrong
    ├── DataError                 (2)   a data file is refused: says which file, and which line where there is one
    ├── KeysRefused               (1)   the key file cannot be used, or is gone
    ├── RunError                  (1)   the command was right, the run failed
    │   ├── TrainingDiverged      (1)   a fit produced factors that are not finite
    │   └── Interrupted         (130)   Ctrl-C ended a command that has something to say of what is there
    ├── ModelError                (1)
    │   ├── ModelMissing          (1)   there is no such version, or none is active
    │   └── ModelRefused          (1)   a published directory fails its checks; the served model stays
    └── RequestError                    becomes problem+json in `service.serving.boundary`, nowhere else
        ├── Malformed           400     not HTTP or not JSON as we read it
        ├── Unauthorized        401     no key, or none that is valid
        ├── Forbidden           403     the key's scopes or origins do not allow it
        ├── NotFound            404     no such route or item
        ├── MethodNotAllowed    405
        ├── RequestTimedOut     408     the body did not arrive in time
        ├── TooLarge            413
        ├── UnsupportedBody     415     encoded, or not JSON
        ├── Invalid             422     JSON of the wrong content; one entry per bad field
        └── Unavailable         503     draining, or no room for events; carries Retry-After
            ├── Overloaded      503     more requests than can be answered in time
            └── NoModel         503     nothing to make a list of
                └── NoModelHere 504     the same, said to nginx, which asks another replica then
"""

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the known name that a wrong one may stand for, as a part of a sentence; nothing if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f" (did you mean {close[0]}?)" if close else ""


class RecollectError(Exception):
    """The root; its text is one sentence for the person who reads it."""

    exit_code: ClassVar[int] = 1


class UsageError(RecollectError):
    """The command line or a setting is wrong."""

    exit_code = 2


class DataError(RecollectError):
    """A data file is refused."""

    exit_code = 2


class KeysRefused(RecollectError):
    """The key file cannot be used, or is gone."""


class RunError(RecollectError):
    """The command was right, the run failed."""


class TrainingDiverged(RunError):
    """A fit produced factors that are not finite."""


class Interrupted(RunError):
    """Ctrl-C ended a command that has something to say of what is there."""

    exit_code = 130


class ModelError(RecollectError):
    """Something about a published model."""


class ModelMissing(ModelError):
    """There is no such version, or none is active."""


class ModelRefused(ModelError):
    """A published directory fails its checks."""


class RequestError(RecollectError):
    """An answer that is not 2xx, as RFC 9457 describes it.

    Args:
        detail: What is wrong with this request, for its sender.
        errors: One entry per bad field: `field` (a path such as `events[3].value`) and `message`.
        retry_after_s: Seconds for the Retry-After header, if waiting may help.
    """

    status: ClassVar[int] = 500
    name: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self, detail: str, *, errors: list[dict[str, Any]] | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.retry_after_s = retry_after_s

    def problem(self) -> dict[str, Any]:
        """Return the problem+json body (RFC 9457 section 3.1)."""
        body: dict[str, Any] = {
            "type": f"/problems/{self.name}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = self.errors
        return body


class Malformed(RequestError):
    """Not HTTP or not JSON as we read it."""

    status, name, title = 400, "malformed", "Malformed request"


class Unauthorized(RequestError):
    """No key was presented, or none that is valid.

    Args:
        detail: What is wrong with this request, for its sender.
        challenge: The value of WWW-Authenticate (RFC 6750 section 3).
    """

    status, name, title = 401, "unauthorized", "Unauthorized"

    def __init__(self, detail: str, *, challenge: str) -> None:
        super().__init__(detail)
        self.challenge = challenge


class Forbidden(RequestError):
    """The key is valid, but not for this.

    Args:
        detail: What is wrong with this request, for its sender.
        challenge: The value of WWW-Authenticate (RFC 6750 section 3.1), or None.
    """

    status, name, title = 403, "forbidden", "Forbidden"

    def __init__(self, detail: str, *, challenge: str | None = None) -> None:
        super().__init__(detail)
        self.challenge = challenge


class NotFound(RequestError):
    """No such route or item."""

    status, name, title = 404, "not-found", "Not found"


class MethodNotAllowed(RequestError):
    """The route exists, the method does not."""

    status, name, title = 405, "method-not-allowed", "Method not allowed"

    def __init__(self, detail: str, *, allow: str) -> None:
        super().__init__(detail)
        self.allow = allow


class RequestTimedOut(RequestError):
    """The body did not arrive in time."""

    status, name, title = 408, "timeout", "Request timed out"


class TooLarge(RequestError):
    """The body is over the limit."""

    status, name, title = 413, "too-large", "Request too large"


class UnsupportedBody(RequestError):
    """An encoded body, or one that is not JSON."""

    status, name, title = 415, "unsupported-body", "Unsupported body"


class Invalid(RequestError):
    """JSON of the wrong content."""

    status, name, title = 422, "invalid", "Invalid request"


class Unavailable(RequestError):
    """Overload, draining, no model, or no room for events."""

    status, name, title = 503, "unavailable", "Temporarily unavailable"


class Overloaded(Unavailable):
    """More requests than can be answered in time; this one was not begun."""

    def __init__(self) -> None:
        super().__init__("More requests are open than can be answered in time; try again later.", retry_after_s=1)


class NoModel(Unavailable):
    """Nothing to make a list of."""

    def __init__(self) -> None:
        super().__init__("No model is loaded yet.", retry_after_s=1)


class NoModelHere(NoModel):
    """The same, said to nginx, which asks another replica then; a 503 may be overload, which must not visit all."""

    status = 504
