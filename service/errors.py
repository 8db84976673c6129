"""Every error of this package, declared once. /openapi.json quotes the docstrings of request errors.

::

    RecollectError                      (exit code, or HTTP status)
    ├── UsageError                (2)
    ├── DataError                 (2)
    │   └── NothingArchived       (2)
    ├── KeysRefused               (1)
    ├── FilterRefused             (1)
    ├── CandidatesUnavailable     (1)
    ├── RunError                  (1)
    │   ├── TrainingDiverged      (1)
    │   ├── OverBudget            (1)
    │   ├── LeftGroup             (1)
    │   ├── GroupBroken           (1)
    │   └── Interrupted         (130)
    ├── ModelError                (1)
    │   ├── ModelMissing          (1)
    │   └── ModelRefused          (1)
    └── RequestError            500     rendered as problem+json by `service.serving.http.boundary` alone
        ├── Malformed           400
        ├── Unauthorized        401
        ├── Forbidden           403
        ├── NotFound            404
        ├── MethodNotAllowed    405
        ├── RequestTimedOut     408
        ├── OtherSpace          409
        ├── TooLarge            413
        ├── UnsupportedBody     415
        ├── Invalid             422
        └── Unavailable         503
            ├── Overloaded      503
            └── NoModel         503
                └── NoModelHere 504
"""

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a clause with the closest known name, or an empty text if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f" (did you mean {close[0]}?)" if close else ""


class RecollectError(Exception):
    """The base class; the text is one sentence for the user, and a command ends with `exit_code`."""

    exit_code: ClassVar[int] = 1


class UsageError(RecollectError):
    """The command line or a setting is wrong."""

    exit_code = 2


class DataError(RecollectError):
    """A data file is refused; the message names the file and, if there is one, the line."""

    exit_code = 2


class NothingArchived(DataError):
    """An archive holds nothing to learn from yet; beside other data it counts for nothing."""


class KeysRefused(RecollectError):
    """The key file cannot be used, or is missing."""


class FilterRefused(RecollectError):
    """A filter cannot be read, or does not fit the items.

    The text continues "The filter …", without a full stop; `column` counts its characters from 1.
    """

    def __init__(self, reason: str, column: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.column = column


class CandidatesUnavailable(RecollectError):
    """The candidates service gave no answer; the list is made from popular candidates."""


class RunError(RecollectError):
    """A correct command failed."""


class TrainingDiverged(RunError):
    """Training produced factors that are not finite."""


class OverBudget(RunError):
    """A fit would take longer than the time that is left for it; ends the fit, not the command."""


class LeftGroup(RunError):
    """A member of a training group has done its part of a fit; ends its part, not the command."""


class GroupBroken(RunError):
    """A member of a training group has lost another one; the group is started again."""


class Interrupted(RunError):
    """Ctrl-C ended a command; the message describes the partial result."""

    exit_code = 130


class ModelError(RecollectError):
    """A published model is missing or refused."""


class ModelMissing(ModelError):
    """The version does not exist, or none is active."""


class ModelRefused(ModelError):
    """A published version fails its checks; the served model stays."""


class RequestError(RecollectError):
    """A refused request (RFC 9457).

    `detail` is a sentence for the client, `errors` has a `field` and a `message` per bad field, and `retry_after_s` is
    given if a later attempt may succeed.
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
    """The request is not HTTP, or its body is not JSON."""

    status, name, title = 400, "malformed", "Malformed request"


class Unauthorized(RequestError):
    """The request has no valid API key.

    `challenge` is the value of WWW-Authenticate (RFC 6750 section 3).
    """

    status, name, title = 401, "unauthorized", "Unauthorized"

    def __init__(self, detail: str, *, challenge: str) -> None:
        super().__init__(detail)
        self.challenge = challenge


class Forbidden(RequestError):
    """The API key lacks the scope, or is not for the origin.

    `challenge` is the value of WWW-Authenticate (RFC 6750 section 3.1), or None.
    """

    status, name, title = 403, "forbidden", "Forbidden"

    def __init__(self, detail: str, *, challenge: str | None = None) -> None:
        super().__init__(detail)
        self.challenge = challenge


class NotFound(RequestError):
    """The route or item does not exist."""

    status, name, title = 404, "not-found", "Not found"


class MethodNotAllowed(RequestError):
    """The route does not have the method."""

    status, name, title = 405, "method-not-allowed", "Method not allowed"

    def __init__(self, detail: str, *, allow: str) -> None:
        super().__init__(detail)
        self.allow = allow


class RequestTimedOut(RequestError):
    """The body did not arrive in time."""

    status, name, title = 408, "timeout", "Request timed out"


class OtherSpace(RequestError):
    """No served model has the embedding space of the vector."""

    status, name, title = 409, "other-embedding-space", "Other embedding space"


class TooLarge(RequestError):
    """The body exceeds the limit."""

    status, name, title = 413, "too-large", "Request too large"


class UnsupportedBody(RequestError):
    """The body is encoded, or not JSON."""

    status, name, title = 415, "unsupported-body", "Unsupported body"


class Invalid(RequestError):
    """The content of the request is wrong."""

    status, name, title = 422, "invalid", "Invalid request"


class Unavailable(RequestError):
    """The service is overloaded, draining, without a model or without room for events."""

    status, name, title = 503, "unavailable", "Temporarily unavailable"


class Overloaded(Unavailable):
    """Admission control refused the request."""

    def __init__(self) -> None:
        super().__init__("More requests are open than can be answered in time; try again later.", retry_after_s=1)


class NoModel(Unavailable):
    """No model is loaded."""

    def __init__(self) -> None:
        super().__init__("No model is loaded yet.", retry_after_s=1)


class NoModelHere(NoModel):
    """`NoModel` for nginx, which asks another replica at 504. It does not at 503, which may mean overload."""

    status = 504
