"""The parameters of the OpenAPI document: what a path, a query or a header may say (pure)."""

from typing import Any, Final, TypeAlias

from service.api import search_wire, wire
from service.api.list_bodies import FILTER_EXAMPLE, FILTER_LIMIT, PAGE_TOKEN_LIMIT
from service.lists.popular_window import WINDOW_PATTERN

Parameter: TypeAlias = dict[str, Any]


def id_parameter(name: str, description: str) -> Parameter:
    """Return the parameter of an id in the path."""
    schema = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": wire.ID_PATTERN}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def in_query(parameter: Parameter) -> Parameter:
    """Return the same parameter in the query."""
    return {**parameter, "in": "query"}


N: Final[Parameter] = {
    "name": "n",
    "in": "query",
    "description": f"How many items; {wire.N_DEFAULT} by default.",
    "schema": {"type": "integer", "minimum": 1, "maximum": wire.N_LIMIT, "default": wire.N_DEFAULT},
}
OFFSET: Final[Parameter] = {
    "name": "offset",
    "in": "query",
    "description": "How many of the best items to skip; 0 by default.",
    "schema": {"type": "integer", "minimum": 0, "maximum": wire.OFFSET_LIMIT, "default": 0},
}
EXPLAIN: Final[Parameter] = {
    "name": "explain",
    "in": "query",
    "description": "How many items of the history to name for each item, with their shares of its score.",
    "schema": {"type": "integer", "minimum": 0, "maximum": wire.EXPLAIN_LIMIT, "default": 0},
}
DEADLINE: Final[Parameter] = {
    "name": "deadline_ms",
    "in": "query",
    "description": "Within how many milliseconds the answer is needed; a simpler list, see `degraded`, may be it.",
    "schema": {"type": "integer", "minimum": 1, "maximum": wire.DEADLINE_LIMIT_MS},
}
FILTER: Final[Parameter] = {
    "name": "filter",
    "in": "query",
    "description": f"What the items must be; {FILTER_EXAMPLE}.",
    "schema": {"type": "string", "minLength": 1, "maxLength": FILTER_LIMIT},
}
PAGE_TOKEN: Final[Parameter] = {
    "name": "page_token",
    "in": "query",
    "description": "`next_page_token` of the page before. A long one needs the POST route: a URL has 8 KiB.",
    "schema": {"type": "string", "maxLength": PAGE_TOKEN_LIMIT},
}
FIELDS: Final[Parameter] = {
    "name": "fields",
    "in": "query",
    "description": "What to return of each item, separated by commas: `title`, or an attribute such as `genres`.",
    "style": "form",
    "explode": False,
    "schema": {
        "type": "array",
        "items": {"type": "string", "pattern": wire.NAME_PATTERN},
        "minItems": 1,
        "maxItems": wire.FIELDS_LIMIT,
    },
}
KEY: Final[Parameter] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same on every attempt and on no other request; events without an id get <key>-<index>.",
    "schema": {"type": "string", "pattern": wire.KEY_PATTERN},
}
WINDOW: Final[Parameter] = {
    "name": "window",
    "in": "query",
    "description": "Within which time, up to the latest interaction; without it of all time, recent ones first.",
    "schema": {"type": "string", "pattern": WINDOW_PATTERN, "examples": ["7d", "12h"]},
}
LIST: Final = [N, OFFSET, FILTER, PAGE_TOKEN, FIELDS, EXPLAIN, DEADLINE]
"""Of every JSON list."""
WORDS: Final[Parameter] = {
    "name": "q",
    "in": "query",
    "description": "Words of titles and attributes. The last one may be unfinished, and misspelt ones are corrected.",
    "schema": {"type": "string", "pattern": search_wire.TEXT_PATTERN},
}
_LIKE: Final = id_parameter("like", "An item: those nearest to it are found, or come first among those that match `q`.")
_TASTE: Final = id_parameter("user_id", "A user whose taste counts; without one, popular items come before others.")
SEARCH: Final = [WORDS, in_query(_LIKE), in_query(_TASTE), N, FILTER, FIELDS]
