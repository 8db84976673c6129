"""The errors that nginx itself answers, as application/problem+json (RFC 9457) with the types of the service."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class NginxProblem:
    """One error; its `type` is /problems/NAME."""

    status: int
    name: str
    title: str
    detail: str


PROBLEMS = (
    NginxProblem(
        400,
        "malformed",
        "Malformed request",
        "This is not a valid HTTP request, or the dot segments of its path lead above the root.",
    ),
    NginxProblem(404, "not-found", "Not found", "There is no such route; /docs describes the routes."),
    NginxProblem(405, "method-not-allowed", "Method not allowed", "This method is not served here."),
    NginxProblem(413, "too-large", "Request too large", "A request body may have 64 KiB at most."),
    NginxProblem(414, "uri-too-long", "URI too long", "The request line may have 8 KiB at most."),
    NginxProblem(415, "unsupported-body", "Unsupported body", "Send the body without Content-Encoding."),
    NginxProblem(421, "misdirected", "Misdirected request", "The host of this request is not served here."),
    NginxProblem(429, "too-many-requests", "Too many requests", "This client exceeds its limit; try again later."),
    NginxProblem(500, "internal", "Internal error", "The request failed because of an internal error."),
    NginxProblem(501, "not-implemented", "Not implemented", "This transfer encoding is not supported."),
    NginxProblem(502, "unavailable", "Temporarily unavailable", "No replica answers; try again."),
    NginxProblem(503, "unavailable", "Temporarily unavailable", "No replica can answer this at the moment; try again."),
    NginxProblem(504, "unavailable", "Temporarily unavailable", "No replica answered in time; try again."),
    NginxProblem(505, "http-version", "HTTP version not supported", "Use HTTP/1.1."),
)
# The same as the service's (service/api/reply.py).
COMMON_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
# The status of an exceeded limit. No replica sends it, so that a replica's own 429 keeps its body.
OVER_LIMIT = 470
_RETRY_LATER = {429, 502, 503, 504}
# These may occur before nginx has a path, when it cannot use a named location.
_WITHOUT_PATH = {400, 414, 505}
# nginx's own status for too large headers, answered as 400.
_HEADERS_TOO_LARGE = 494
# No request matches a location of this name: nginx removes dot segments from a path first.
_UNREACHABLE = "/../problem"
# nginx's own status for plain HTTP on a TLS port, answered as 400.
_WITHOUT_TLS = 497
_PLAIN = NginxProblem(400, "malformed", "Malformed request", "This port uses TLS: use https.")
STATUSES = frozenset(problem.status for problem in PROBLEMS)


def error_pages(statuses: frozenset[int] = STATUSES) -> list[str]:
    """Return the directives that map errors to their locations."""
    lines = []
    for status in sorted(statuses):
        if status in _WITHOUT_PATH:
            also = f" {_HEADERS_TOO_LARGE}" if status == 400 else ""
            lines.append(f"error_page {status}{also} {_UNREACHABLE}/{status};")
        else:
            lines.append(f"error_page {status} @problem_{status};")
    return lines


def limit_page() -> str:
    """Return the directive for an exceeded limit."""
    return f"error_page {OVER_LIMIT} =429 @problem_429;"


def plain_page() -> str:
    """Return the directive for plain HTTP on a TLS port."""
    return f"error_page {_WITHOUT_TLS} =400 @problem_{_WITHOUT_TLS};"


def locations(headers: list[str]) -> str:
    """Return the location of each answer, with directives that add headers to it."""
    plain = f"    location @problem_{_WITHOUT_TLS} {{\n{_lines(_answer(_PLAIN, headers))}\n    }}"
    return "\n".join([*(_location(problem, headers) for problem in PROBLEMS), plain])


def _location(problem: NginxProblem, headers: list[str]) -> str:
    name = f"= {_UNREACHABLE}/{problem.status}" if problem.status in _WITHOUT_PATH else f"@problem_{problem.status}"
    first = ["internal;"] if problem.status in _WITHOUT_PATH else []
    return f"    location {name} {{\n{_lines(first + _answer(problem, headers))}\n    }}"


def _answer(problem: NginxProblem, headers: list[str]) -> list[str]:
    # The headers of a location replace those of the server.
    common = [f"add_header {name} {value} always;" for name, value in COMMON_HEADERS.items()]
    lines = ["default_type application/problem+json;", *common, *headers]
    if problem.status in _RETRY_LATER:
        lines.append("add_header Retry-After 1 always;")
    if problem.status == 405:
        lines.append("add_header Allow $allow always;")
    if problem.status == 502:
        # Every replica has its maximum of open requests: load is shed, and no replica is broken.
        lines.append("if ($busy) { return 503; }")
    return [*lines, f"return {problem.status} '{_body(problem)}\\n';"]


def _lines(directives: list[str]) -> str:
    return "\n".join(" " * 6 + directive for directive in directives)


def _body(problem: NginxProblem) -> str:
    return json.dumps(
        {
            "type": f"/problems/{problem.name}",
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
        }
    )
