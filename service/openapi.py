"""The API, machine-readable (OpenAPI 3.1) and as a page that needs no other site.

Body schemas are those of the pydantic models that check the bodies; response schemas those of the TypedDicts that are
sent; so neither can drift from the code.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Final

import orjson
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from service import wire
from service.errors import (
    Invalid,
    Malformed,
    MethodNotAllowed,
    NotFound,
    RequestError,
    RequestTimedOut,
    TooLarge,
    Unavailable,
    UnsupportedBody,
)

_REF: Final = "#/components/schemas/{model}"
_RESPONSES: Final = {
    "Recommendations": wire.Recommendations,
    "Accepted": wire.Accepted,
    "Erasure": wire.Erasure,
}
_DEGRADED: Final = {
    "X-Degraded": {
        "description": "The rung that a degraded list was served from; absent on others.",
        "schema": {"type": "string", "enum": ["stale", "stale_model", "static"]},
    }
}
_PLAIN_HEADERS: Final = {
    "X-Recommendation-Id": {"description": "Send it back with events.", "schema": {"type": "string"}},
    **_DEGRADED,
}


@cache
def page() -> bytes:
    """Return the page at /docs."""
    return files("service").joinpath("docs.html").read_bytes()


@cache
def document() -> bytes:
    """Return /openapi.json."""
    return orjson.dumps(build(), option=orjson.OPT_INDENT_2)


def build() -> dict[str, Any]:
    """Build the OpenAPI 3.1 document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Recollect",
            "version": "1",
            "summary": "Recommendations from memory, and everything about them remembered.",
            "description": "Ids are strings of 1 to 128 characters without control characters, percent-encoded in "
            "paths. Errors are application/problem+json (RFC 9457).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": _paths(),
        "components": {"schemas": _schemas()},
    }


def _paths() -> dict[str, Any]:
    user = _path_parameter("user_id", "A user; one that the model does not know gets the popular items.")
    item = _path_parameter("item_id", "An item of the served model.")
    n = {
        "name": "n",
        "in": "query",
        "description": "How many items.",
        "schema": {"type": "integer", "minimum": 1, "maximum": wire.N_LIMIT, "default": wire.N_DEFAULT},
    }
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same on every attempt, and on nothing else; events without an event_id get <key>-<index>.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{8,64}$"},
    }
    listed = _content("application/json", "Recommendations", headers=_DEGRADED)
    text = {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}
    ready = {"200": text, **_problems(Unavailable)}
    body = (Malformed, RequestTimedOut, TooLarge, UnsupportedBody, Invalid, Unavailable)
    return {
        "/recommend/{user_id}": {
            "get": _operation(
                "recommendPlain",
                f"Up to {wire.PLAIN_LIMIT} item ids as one comma separated line",
                {
                    "200": {
                        "description": "Ids, best first; a comma or per cent sign inside an id is percent-encoded.",
                        "headers": _PLAIN_HEADERS,
                        "content": {"text/plain": {"schema": {"type": "string"}, "example": "318,527,50\n"}},
                    },
                    **_problems(Invalid, Unavailable),
                },
                parameters=[user],
            )
        },
        "/v1/recommendations/{user_id}": {
            "get": _operation(
                "recommend",
                "A list for a user",
                {"200": listed, **_problems(Invalid, Unavailable)},
                parameters=[user, n],
            )
        },
        "/v1/recommendations": {
            "post": _operation(
                "recommendWith",
                "A list with an offset, exclusions or candidates of your own",
                {"200": listed, **_problems(*body)},
                body="RecommendationsRequest",
            )
        },
        "/v1/items/{item_id}/similar": {
            "get": _operation(
                "similar",
                "The items nearest to an item",
                {"200": listed, **_problems(NotFound, Invalid, Unavailable)},
                parameters=[item, n],
            )
        },
        "/v1/popular": {
            "get": _operation(
                "popular",
                "What everybody likes of late",
                {"200": listed, **_problems(Invalid, Unavailable)},
                parameters=[n],
            )
        },
        "/v1/events": {
            "post": _operation(
                "events",
                "Tell what users did; all events are taken or none",
                {"202": _content("application/json", "Accepted"), **_problems(*body)},
                parameters=[key],
                body="EventsRequest",
            )
        },
        "/v1/users/{user_id}": {
            "delete": _operation(
                "forget",
                "Forget a user",
                {"202": _content("application/json", "Erasure"), **_problems(Invalid, Unavailable)},
                parameters=[_path_parameter("user_id", "A user, known or not.")],
            )
        },
        "/v1/model": {
            "get": _operation(
                "model",
                "What is being served",
                {
                    "200": {"description": "OK", "content": {"application/json": {"schema": {"type": "object"}}}},
                    **_problems(Invalid, Unavailable),
                },
            )
        },
        "/healthz": {"get": _operation("healthz", "The process answers", {"200": text})},
        "/readyz": {"get": _operation("readyz", "At least one replica is ready", ready)},
    }


def _operation(
    name: str, summary: str, responses: dict[str, Any], *, parameters: list[Any] | None = None, body: str | None = None
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {**responses, **_problems(MethodNotAllowed)},
    }
    if parameters:
        operation["parameters"] = parameters
    if body:
        schema = {"$ref": _REF.format(model=body)}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _path_parameter(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "maxLength": 128}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _content(kind: str, model: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    response: dict[str, Any] = {"description": "OK", "content": {kind: {"schema": {"$ref": _REF.format(model=model)}}}}
    if headers:
        response["headers"] = headers
    return response


def _problems(*errors: type[RequestError]) -> dict[str, Any]:
    found = {}
    for error in errors:
        response = {
            "description": error.title,
            "content": {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}},
        }
        if error is Unavailable:
            response["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
        found[str(error.status)] = response
    return found


def _schemas() -> dict[str, Any]:
    _, bodies = models_json_schema(
        [(wire.RecommendationsRequest, "validation"), (wire.EventsRequest, "validation")], ref_template=_REF
    )
    schemas: dict[str, Any] = dict(bodies["$defs"])
    for name, response in _RESPONSES.items():
        schema = TypeAdapter(response).json_schema(mode="serialization", ref_template=_REF)
        schemas.update(schema.pop("$defs", {}))
        schemas[name] = schema
    schemas["Problem"] = {
        "type": "object",
        "description": "RFC 9457; `errors` has one entry per bad field.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "examples": ["/problems/invalid"]},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["field", "message"],
                    "properties": {
                        "field": {"type": "string", "examples": ["events[3].value"]},
                        "message": {"type": "string"},
                        "row": {"type": "integer"},
                    },
                },
            },
        },
    }
    return schemas
