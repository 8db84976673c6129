"""The OpenAPI 3.1 document of the API.

Its schemas are generated from the pydantic models that check bodies and the TypedDicts of the responses, so they cannot
drift from the code. It lists every status that a client can receive, from a replica or from nginx.
"""

from functools import cache
from typing import Any, Final, get_args

import orjson

from service.api import wire
from service.api.query_parameters import KEY, LIST, SEARCH, WINDOW, N, id_parameter, in_query
from service.api.schemas import ref, schemas
from service.errors import Invalid, NotFound, OtherSpace, RequestError, RequestTimedOut
from service.security.api_key import Scope

_RETRY: Final = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_CHALLENGE: Final = {"WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}}}
_ALLOW: Final = {"Allow": {"description": "The allowed methods.", "schema": {"type": "string"}}}
_HEADERS_OF: Final[dict[int, dict[str, Any]]] = {
    **dict.fromkeys((401, 403), _CHALLENGE),
    405: _ALLOW,
    **dict.fromkeys((429, 502, 503, 504), _RETRY),
}
# Without their subclasses, whose statuses are listed already or sent to nginx alone.
_ERRORS: Final[tuple[type[RequestError], ...]] = (RequestError, *RequestError.__subclasses__())
# Answers of nginx alone.
_BALANCER: Final = {
    414: ("UriTooLong", "The request line is over 8 KiB."),
    421: ("Misdirected", "This host is not served here."),
    429: ("TooManyRequests", "This client exceeds its request rate."),
    501: ("NotImplemented", "A transfer encoding other than chunked."),
    502: ("BadGateway", "No replica answers."),
    504: ("GatewayTimeout", "No replica answered in time."),
    505: ("HttpVersion", "This version of HTTP is not supported."),
}
_INTERNAL: Final = "The service failed; the cause has been logged."
_NAMES: Final = {error.status: "Internal" if error is RequestError else error.__name__ for error in _ERRORS}
# Possible for any request: a body is checked even if the route has none.
_ANYWHERE: Final = (400, 405, 413, 414, 415, 421, 429, 500, 501, 505)
_AT_A_REPLICA: Final = (502, 503, 504)
_KEYED: Final = (401, 403)
_DEGRADED: Final = {
    "X-Degraded": {
        "description": "The degradation level of the list; absent in full service.",
        "schema": {"type": "string", "enum": list(get_args(wire.DegradationLevel))},
    }
}
_PLAIN_LIST: Final = {
    "description": "Ids, best first; commas and percent signs inside an id are percent-encoded.",
    "headers": {
        "X-Recommendation-Id": {
            "description": "The id of the list, to be sent with events. Absent on a static list and on HEAD.",
            "schema": {"type": "string"},
        },
        **_DEGRADED,
    },
    "content": {"text/plain": {"schema": {"type": "string"}, "example": "318,527,50\n"}},
}
_LIST: Final = {
    "description": "The list",
    "headers": _DEGRADED,
    "content": {"application/json": {"schema": ref("Recommendations")}},
}
_QUERIED: Final = "The same with the id in the query, for ids that cannot be in a path, such as ../.."
_TEXT: Final = {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}


@cache
def document(*, keyed: bool = False) -> bytes:
    """Return /openapi.json; unless `keyed`, an API key is optional."""
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
            "summary": "Lists of recommended items, and events that report what users did with them.",
            "description": "Ids are strings of 1 to 128 characters without control characters, percent-encoded in "
            "paths. Errors are application/problem+json (RFC 9457). Every GET route also answers HEAD.",
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
    user = id_parameter("user_id", "A user; an unknown one gets the popular items.")
    any_user = id_parameter("user_id", "A user, known or not.")
    item = id_parameter("item_id", "An item of the served model.")
    any_item = id_parameter("item_id", "An item, known to the model or not.")
    plain_summary = f"Up to {wire.PLAIN_LIMIT} item ids as one comma-separated line"
    return {
        "/recommend/{user_id}": {"get": _list_operation("recommendPlain", plain_summary, [user], response=_PLAIN_LIST)},
        "/recommend": {
            "get": _list_operation("recommendPlainTo", _QUERIED, [in_query(user)], response=_PLAIN_LIST),
        },
        "/v1/recommendations/{user_id}": {"get": _list_operation("recommend", "A list for a user", [user, *LIST])},
        "/v1/recommendations": {
            "get": _list_operation("recommendTo", _QUERIED, [in_query(user), *LIST]),
            "post": _list_operation(
                "recommendWith",
                "A list with all that can be asked for",
                [],
                RequestTimedOut.status,
                body="RecommendationsRequest",
            ),
        },
        "/v1/recommendations/batch": {
            "post": _list_operation(
                "recommendMany",
                "Several lists in one request; all are answered or none",
                [],
                RequestTimedOut.status,
                response=_content("The lists", "ManyRecommendations"),
                body="ManyRecommendationsRequest",
            ),
        },
        "/v1/candidates": {
            "post": _operation(
                "candidates",
                "The items nearest to a vector; the list is shown to no user and not recorded",
                {"200": _content("The candidates", "Candidates")},
                Invalid.status,
                OtherSpace.status,
                RequestTimedOut.status,
                scope="recommend",
                body="CandidatesRequest",
            )
        },
        "/v1/items/{item_id}/similar": {
            "get": _list_operation("similar", "The items nearest to an item", [item, *LIST], NotFound.status)
        },
        "/v1/items/similar": {"get": _list_operation("similarTo", _QUERIED, [in_query(item), *LIST], NotFound.status)},
        "/v1/items/{item_id}": {
            "get": _item_operation("showItem", "What is known of an item", [any_item]),
            "put": _item_change_operation("putItem", "Write an item", [any_item, KEY], body="ItemRecordIn"),
            "delete": _item_change_operation("deleteItem", "Remove an item from every list", [any_item, KEY]),
        },
        "/v1/items": {
            "get": _search_operation([any_item, *SEARCH]),
            "put": _item_change_operation("putItemByQuery", _QUERIED, [in_query(any_item), KEY], body="ItemRecordIn"),
            "delete": _item_change_operation("deleteItemByQuery", _QUERIED, [in_query(any_item), KEY]),
            "post": _item_change_operation(
                "postItems",
                "Write several items; all are accepted or none",
                [KEY],
                body="ItemsRequest",
                receipt=_content("All items are accepted", "ItemsAccepted"),
            ),
        },
        "/v1/popular": {
            "get": _list_operation("popular", "The popular items, of all time or within a window", [*LIST, WINDOW])
        },
        "/v1/events": {
            "post": _operation(
                "events",
                "Report actions of users; all events are accepted or none",
                {"202": _content("All events are accepted", "Accepted")},
                RequestTimedOut.status,
                Invalid.status,
                effect="The events are recorded as actions of these users: they change lists and later models.",
                writes=True,
                scope="events",
                parameters=[KEY],
                body="EventsRequest",
            )
        },
        "/v1/users/{user_id}": {
            "get": _known_user_operation("knownUser", "What is known of a user", [any_user, N]),
            "delete": _erase_operation("eraseUser", "Erase a user", any_user),
        },
        "/v1/users": {
            "get": _known_user_operation("knownUserByQuery", _QUERIED, [in_query(any_user), N]),
            "delete": _erase_operation("eraseUserByQuery", _QUERIED, in_query(any_user)),
        },
        "/v1/model": {
            "get": _operation(
                "model", "The served model", {"200": _content("The model", "Model")}, Invalid.status, scope="recommend"
            )
        },
        "/healthz": {"get": _operation("healthz", "The process answers", {"200": _TEXT}, at_a_replica=False)},
        "/readyz": {"get": _operation("readyz", "At least one replica is ready", {"200": _TEXT})},
    }


def _list_operation(
    name: str,
    summary: str,
    parameters: list[Any],
    *statuses: int,
    response: dict[str, Any] | None = None,
    body: str | None = None,
) -> dict[str, Any]:
    return _operation(
        name,
        summary,
        {"200": response or _LIST},
        Invalid.status,
        *statuses,
        effect="The list is recorded as shown to a user.",
        scope="recommend",
        parameters=parameters,
        body=body,
    )


def _item_operation(name: str, summary: str, parameters: list[Any]) -> dict[str, Any]:
    return _operation(
        name,
        summary,
        {"200": _content("The item", "ItemDetails")},
        Invalid.status,
        NotFound.status,
        scope="recommend",
        parameters=parameters,
    )


def _search_operation(parameters: list[dict[str, Any]]) -> dict[str, Any]:
    either = {"anyOf": [ref("FoundItems"), ref("ItemDetails")]}
    content = {"application/json": {"schema": either}}
    return _operation(
        "searchItems",
        "Search the catalogue by words (`q`) or by an item (`like`); with `item_id` alone, what is known of an item",
        {"200": {"description": "What was found, or the item", "content": content}},
        Invalid.status,
        NotFound.status,
        scope="recommend",
        parameters=[{**in_query(one), "required": False} for one in parameters],
    )


def _item_change_operation(
    name: str,
    summary: str,
    parameters: list[Any],
    *,
    body: str | None = None,
    receipt: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return _operation(
        name,
        summary,
        {"202": receipt or _content("The change is accepted", "ItemReceipt")},
        Invalid.status,
        *(() if body is None else (RequestTimedOut.status,)),
        effect="Lists show, leave out or may hold the item from now on.",
        writes=True,
        scope="items",
        parameters=parameters,
        body=body,
    )


def _known_user_operation(name: str, summary: str, parameters: list[Any]) -> dict[str, Any]:
    responses = {"200": _content("The user", "KnownUser")}
    return _operation(name, summary, responses, Invalid.status, scope="users", parameters=parameters)


def _erase_operation(name: str, summary: str, user: dict[str, Any]) -> dict[str, Any]:
    return _operation(
        name,
        summary,
        {"202": _content("The erase is ordered", "Erasure")},
        Invalid.status,
        effect="The user is erased for good: from every model and from the archive.",
        writes=True,
        scope="erase",
        parameters=[user],
    )


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
        # Extensions (OpenAPI 3.1 section 4.9): the effect of a call, and whether it changes data.
        operation["x-effect"] = effect
        operation["x-writes"] = writes
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref(body)}}}
    return operation


def _content(description: str, model: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": ref(model)}}}


def _name(status: int) -> str:
    return _NAMES[status] if status in _NAMES else _BALANCER[status][0]


def _responses() -> dict[str, Any]:
    sentences = {status: sentence for status, (_, sentence) in _BALANCER.items()}
    for error in _ERRORS:
        # The first line of an error's docstring is public: it describes the answer.
        sentences[error.status] = _INTERNAL if error is RequestError else (error.__doc__ or "").partition("\n")[0]
    found: dict[str, Any] = {}
    for status, sentence in sorted(sentences.items()):
        found[_name(status)] = response = {
            "description": sentence,
            "content": {"application/problem+json": {"schema": ref("Problem")}},
        }
        if status in _HEADERS_OF:
            response["headers"] = _HEADERS_OF[status]
    return found
