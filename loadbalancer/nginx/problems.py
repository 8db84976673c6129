"""The errors that nginx answers itself, as application/problem+json (RFC 9457) with the service's own types."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """An error that nginx answers itself; the types are the service's."""

    status: int
    name: str
    title: str
    detail: str


PROBLEMS = (
    Problem(
        400,
        "malformed",
        "Malformed request",
        "This is not an HTTP request as we read it, or the dot segments of its path lead above the root.",
    ),
    Problem(404, "not-found", "Not found", "There is no such route; /docs describes those that there are."),
    Problem(405, "method-not-allowed", "Method not allowed", "This method is not served here."),
    Problem(413, "too-large", "Request too large", "A request body may have 64 KiB at most."),
    Problem(414, "uri-too-long", "URI too long", "The request line may have 8 KiB at most."),
    Problem(415, "unsupported-body", "Unsupported body", "Send the body without Content-Encoding."),
    Problem(421, "misdirected", "Misdirected request", "The host of this request is not served here."),
    Problem(429, "too-many-requests", "Too many requests", "This client is over its share; try again later."),
    Problem(500, "internal", "Internal error", "Something went wrong on our side."),
    Problem(501, "not-implemented", "Not implemented", "This transfer encoding is not supported."),
    Problem(502, "unavailable", "Temporarily unavailable", "No replica answers; try again."),
    Problem(503, "unavailable", "Temporarily unavailable", "No replica can answer this at the moment; try again."),
    Problem(504, "unavailable", "Temporarily unavailable", "No replica answered in time; try again."),
    Problem(505, "http-version", "HTTP version not supported", "Use HTTP/1.1."),
)
# As the service's own answers have them (service/api/reply.py).
COMMON_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
# A limit's refusal, which no replica sends, so that a replica's own 429 keeps its words.
OVER_LIMIT = 470
_RETRY_LATER = {429, 502, 503, 504}
# nginx may meet these before it has a path, and then cannot go to a named location.
_WITHOUT_PATH = {400, 414, 505}
# Its own number for too large headers, which it answers as 400.
_HEADERS_TOO_LARGE = 494
# No request reaches a location of this name: nginx takes dot segments out of a path before it looks for one.
_UNREACHABLE = "/../problem"


# nginx's own number for a request without TLS where it is spoken, answered as 400.
_WITHOUT_TLS = 497
_PLAIN = Problem(400, "malformed", "Malformed request", "TLS is spoken here: use https.")
STATUSES = frozenset(problem.status for problem in PROBLEMS)


def error_pages(statuses: frozenset[int] = STATUSES) -> list[str]:
    """Return the directives that send errors to their answers."""
    lines = []
    for status in sorted(statuses):
        if status in _WITHOUT_PATH:
            also = f" {_HEADERS_TOO_LARGE}" if status == 400 else ""
            lines.append(f"error_page {status}{also} {_UNREACHABLE}/{status};")
        else:
            lines.append(f"error_page {status} @problem_{status};")
    return lines


def limit_page() -> str:
    """Return the same for what is over a limit."""
    return f"error_page {OVER_LIMIT} =429 @problem_429;"


def plain_page() -> str:
    """Return the same for a request without TLS where it is spoken, which the server meets."""
    return f"error_page {_WITHOUT_TLS} =400 @problem_{_WITHOUT_TLS};"


def locations(headers: list[str]) -> str:
    """Return the location of each answer.

    Args:
        headers: Directives that add headers to every answer.
    """
    plain = f"    location @problem_{_WITHOUT_TLS} {{\n{_lines(_answer(_PLAIN, headers))}\n    }}"
    return "\n".join([*(_location(problem, headers) for problem in PROBLEMS), plain])


def _location(problem: Problem, headers: list[str]) -> str:
    name = f"= {_UNREACHABLE}/{problem.status}" if problem.status in _WITHOUT_PATH else f"@problem_{problem.status}"
    first = ["internal;"] if problem.status in _WITHOUT_PATH else []
    return f"    location {name} {{\n{_lines(first + _answer(problem, headers))}\n    }}"


def _answer(problem: Problem, headers: list[str]) -> list[str]:
    # A location's headers replace the server's.
    common = [f"add_header {name} {value} always;" for name, value in COMMON_HEADERS.items()]
    lines = ["default_type application/problem+json;", *common, *headers]
    if problem.status in _RETRY_LATER:
        lines.append("add_header Retry-After 1 always;")
    if problem.status == 405:
        lines.append("add_header Allow $allow always;")
    if problem.status == 502:
        # Every replica has as many requests open as it may have: that is a refusal, and no replica is broken.
        lines.append("if ($busy) { return 503; }")
    return [*lines, f"return {problem.status} '{_body(problem)}\\n';"]


def _lines(directives: list[str]) -> str:
    return "\n".join(" " * 6 + directive for directive in directives)


def _body(problem: Problem) -> str:
    return json.dumps(
        {
            "type": f"/problems/{problem.name}",
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
        }
    )
