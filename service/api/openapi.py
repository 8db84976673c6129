"""The API, machine-readable (OpenAPI 3.1).

Body schemas are those of the pydantic models that check the bodies; response schemas those of the TypedDicts that are
sent; so neither can drift from the code. Every status that a caller can get is there, from a replica or from nginx.
"""

from functools import cache
from typing import Any, Final, get_args

import orjson

from service.api import wire
from service.api.schemas import ref, schemas
from service.errors import (
    Forbidden,
    Invalid,
    Malformed,
    MethodNotAllowed,
    NotFound,
    RequestError,
    RequestTimedOut,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnsupportedBody,
)
from service.security.api_key import Scope

_RETRY: Final = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_CHALLENGE: Final = {"WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}}}
_ALLOW: Final = {"Allow": {"description": "The methods there are.", "schema": {"type": "string"}}}
_HEADERS_OF: Final[dict[int, dict[str, Any]]] = {
    401: _CHALLENGE,
    403: _CHALLENGE,
    405: _ALLOW,
    429: _RETRY,
    502: _RETRY,
    503: _RETRY,
    504: _RETRY,
}
_ERRORS: Final[tuple[type[RequestError], ...]] = (
    Malformed,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimedOut,
    TooLarge,
    UnsupportedBody,
    Invalid,
    RequestError,
    Unavailable,
)
# What nginx alone answers.
_BALANCER: Final = {
    414: ("UriTooLong", "The request line is over 8 KiB."),
    421: ("Misdirected", "This host is not served here."),
    429: ("TooManyRequests", "This client is over its share."),
    501: ("NotImplemented", "A transfer encoding other than chunked."),
    502: ("BadGateway", "No replica answers."),
    504: ("GatewayTimeout", "No replica answered in time."),
    505: ("HttpVersion", "This version of HTTP is not spoken."),
}
_FAULT: Final = "A fault of ours; it is in the log."
_NAMES: Final = {error.status: "Internal" if error is RequestError else error.__name__ for error in _ERRORS}
# Every request can meet these, whatever it asks for: a body where none belongs is looked at, too.
_ANYWHERE: Final = (400, 405, 413, 414, 415, 421, 429, 500, 501, 505)
_AT_A_REPLICA: Final = (502, 503, 504)
_KEYED: Final = (401, 403)
_DEGRADED: Final = {
    "X-Degraded": {
        "description": "The degradation level that a list was served at; absent on a full one.",
        "schema": {"type": "string", "enum": list(get_args(wire.DegradationLevel))},
    }
}
_PLAIN_HEADERS: Final = {
    "X-Recommendation-Id": {
        "description": "The id of the list; send it back with events. Absent on a static list and on HEAD.",
        "schema": {"type": "string"},
    },
    **_DEGRADED,
}
_LISTED: Final = {
    "description": "The list",
    "headers": _DEGRADED,
    "content": {"application/json": {"schema": ref("Recommendations")}},
}
_SERVED: Final = "The list is recorded as shown to a user."
_ERASED: Final = "This erases the user for good: from every model, and what they did and were shown."
_QUERIED: Final = "The same for an id that no path can hold, such as ../.."
_TEXT: Final = {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}


@cache
def document(*, keyed: bool = False) -> bytes:
    """Return /openapi.json.

    Args:
        keyed: Whether requests need an API key; without it they may carry one.
    """
    return orjson.dumps(build(keyed=keyed), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def build(*, keyed: bool = False) -> dict[str, Any]:
    """Build the OpenAPI 3.1 document."""
    paths = _paths()
    for item in paths.values():
        for operation in item.values():
            scope = operation.pop("scope")
            schemes: list[dict[str, Any]] = [] if scope is None else [{"bearer": [scope]}, {"apiKey": [scope]}]
            operation["security"] = schemes if keyed or scope is None else [{}, *schemes]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Recollect",
            "version": "1",
            "summary": "Recommendations from memory, and everything about them remembered.",
            "description": "Ids are strings of 1 to 128 characters without control characters, percent-encoded in "
            "paths. Errors are application/problem+json (RFC 9457). Where a GET is possible, so is a HEAD.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": _responses(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _paths() -> dict[str, Any]:
    user = _path_parameter("user_id", "A user; one that the model does not know gets the popular items.")
    any_user = _path_parameter("user_id", "A user, known or not.")
    item = _path_parameter("item_id", "An item of the served model.")
    n = {
        "name": "n",
        "in": "query",
        "description": f"How many items; {wire.N_DEFAULT} without it.",
        "schema": {"type": "integer", "minimum": 1, "maximum": wire.N_LIMIT, "default": wire.N_DEFAULT},
    }
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same on every attempt, and on nothing else; events without an event_id get <key>-<index>.",
        "schema": {"type": "string", "pattern": wire.KEY_PATTERN},
    }
    plain = {
        "description": "Ids, best first; a comma or per cent sign inside an id is percent-encoded.",
        "headers": _PLAIN_HEADERS,
        "content": {"text/plain": {"schema": {"type": "string"}, "example": "318,527,50\n"}},
    }
    body = (RequestTimedOut.status, Invalid.status)
    invalid = Invalid.status
    return {
        "/recommend/{user_id}": {
            "get": _operation(
                "recommendPlain",
                f"Up to {wire.PLAIN_LIMIT} item ids as one comma separated line",
                {"200": plain},
                invalid,
                effect=_SERVED,
                scope="recommend",
                parameters=[user],
            )
        },
        "/recommend": {
            "get": _operation(
                "recommendPlainTo",
                _QUERIED,
                {"200": plain},
                invalid,
                effect=_SERVED,
                scope="recommend",
                parameters=[{**user, "in": "query"}],
            )
        },
        "/v1/recommendations/{user_id}": {
            "get": _operation(
                "recommend",
                "A list for a user",
                {"200": _LISTED},
                invalid,
                effect=_SERVED,
                scope="recommend",
                parameters=[user, n],
            )
        },
        "/v1/recommendations": {
            "get": _operation(
                "recommendTo",
                _QUERIED,
                {"200": _LISTED},
                invalid,
                effect=_SERVED,
                scope="recommend",
                parameters=[{**user, "in": "query"}, n],
            ),
            "post": _operation(
                "recommendWith",
                "A list with an offset, exclusions or candidates of your own",
                {"200": _LISTED},
                *body,
                effect=_SERVED,
                scope="recommend",
                body="RecommendationsRequest",
            ),
        },
        "/v1/items/{item_id}/similar": {
            "get": _operation(
                "similar",
                "The items nearest to an item",
                {"200": _LISTED},
                NotFound.status,
                invalid,
                effect=_SERVED,
                scope="recommend",
                parameters=[item, n],
            )
        },
        "/v1/items/similar": {
            "get": _operation(
                "similarTo",
                _QUERIED,
                {"200": _LISTED},
                NotFound.status,
                invalid,
                effect=_SERVED,
                scope="recommend",
                parameters=[{**item, "in": "query"}, n],
            )
        },
        "/v1/popular": {
            "get": _operation(
                "popular",
                "The most popular items of late",
                {"200": _LISTED},
                invalid,
                effect=_SERVED,
                scope="recommend",
                parameters=[n],
            )
        },
        "/v1/events": {
            "post": _operation(
                "events",
                "Tell what users did; all events are taken or none",
                {"202": _content("All events were taken", "Accepted")},
                *body,
                effect="What you send is recorded as done by these users: it changes lists and later models.",
                writes=True,
                scope="events",
                parameters=[key],
                body="EventsRequest",
            )
        },
        "/v1/users/{user_id}": {
            "delete": _operation(
                "forget",
                "Erase a user",
                {"202": _content("The erase was ordered", "Erasure")},
                invalid,
                effect=_ERASED,
                writes=True,
                scope="erase",
                parameters=[any_user],
            )
        },
        "/v1/users": {
            "delete": _operation(
                "forgetUser",
                _QUERIED,
                {"202": _content("The erase was ordered", "Erasure")},
                invalid,
                effect=_ERASED,
                writes=True,
                scope="erase",
                parameters=[{**any_user, "in": "query"}],
            )
        },
        "/v1/model": {
            "get": _operation(
                "model", "What is being served", {"200": _content("The model", "Model")}, invalid, scope="recommend"
            )
        },
        "/healthz": {"get": _operation("healthz", "The process answers", {"200": _TEXT}, at_a_replica=False)},
        "/readyz": {"get": _operation("readyz", "At least one replica is ready", {"200": _TEXT})},
    }


def _operation(
    name: str,
    summary: str,
    responses: dict[str, Any],
    *statuses: int,
    scope: Scope | None = None,
    parameters: list[Any] | None = None,
    body: str | None = None,
    effect: str | None = None,
    writes: bool = False,
    at_a_replica: bool = True,
) -> dict[str, Any]:
    refused = {*_ANYWHERE, *statuses, *(_AT_A_REPLICA if at_a_replica else ()), *(() if scope is None else _KEYED)}
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {
            **responses,
            **{str(status): {"$ref": f"#/components/responses/{_name(status)}"} for status in sorted(refused)},
        },
        "scope": scope,
    }
    if effect:
        # Extensions (OpenAPI 3.1 section 4.9): what a call leaves behind, and whether that is a change.
        operation["x-effect"] = effect
        operation["x-writes"] = writes
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref(body)}}}
    return operation


def _path_parameter(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": wire.ID_PATTERN}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _content(description: str, model: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": ref(model)}}}


def _name(status: int) -> str:
    return _NAMES[status] if status in _NAMES else _BALANCER[status][0]


def _responses() -> dict[str, Any]:
    sentences = {status: sentence for status, (_, sentence) in _BALANCER.items()}
    for error in _ERRORS:
        sentences[error.status] = _FAULT if error is RequestError else (error.__doc__ or "").partition("\n")[0]
    found: dict[str, Any] = {}
    for status, sentence in sorted(sentences.items()):
        found[_name(status)] = response = {
            "description": sentence,
            "content": {"application/problem+json": {"schema": ref("Problem")}},
        }
        if status in _HEADERS_OF:
            response["headers"] = _HEADERS_OF[status]
    return found
