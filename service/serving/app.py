"""The application factory: a table of contents, no logic."""

import re
from typing import Final, NamedTuple

from aiohttp import web

from service.security.api_key import Scope
from service.serving import candidate_handlers, handlers, item_handlers, search_handlers
from service.serving.boundary import Handler, not_allowed, not_found, with_boundary
from service.serving.context import CONTEXT, ReplicaContext
from service.serving.protocol import handle_expect
from service.serving.user_handlers import known_user


class Route(NamedTuple):
    """One route.

    Attributes:
        scope: What an API key must allow; None if the route needs no key.
        finds_candidates: Whether a replica of the role `candidates` has it, too; the others have all routes.
    """

    method: str
    path: str
    scope: Scope | None
    handler: Handler
    finds_candidates: bool = False


_MANY_LISTS: Final = "/v1/recommendations/batch"
ROUTES: Final = (
    Route("GET", "/recommend/{user_id}", "recommend", handlers.recommend_plain),
    Route("GET", "/v1/recommendations/{user_id}", "recommend", handlers.recommend_get),
    Route("POST", "/v1/recommendations", "recommend", handlers.recommend_post),
    Route("POST", _MANY_LISTS, "recommend", handlers.recommend_many),
    Route("POST", "/v1/candidates", "recommend", candidate_handlers.candidates, finds_candidates=True),
    Route("GET", "/v1/items/{item_id}/similar", "recommend", handlers.similar, finds_candidates=True),
    # The same with the id in the query. Ids such as ../.. cannot be in a path: nginx and browsers resolve them.
    Route("GET", "/recommend", "recommend", handlers.recommend_plain),
    Route("GET", "/v1/recommendations", "recommend", handlers.recommend_get),
    Route("GET", "/v1/items/similar", "recommend", handlers.similar, finds_candidates=True),
    Route("GET", "/v1/items", "recommend", search_handlers.items_by_query, finds_candidates=True),
    Route("PUT", "/v1/items", "items", item_handlers.put_item, finds_candidates=True),
    Route("DELETE", "/v1/items", "items", item_handlers.delete_item, finds_candidates=True),
    Route("GET", "/v1/users", "users", known_user),
    Route("DELETE", "/v1/users", "erase", handlers.erase_user),
    Route("GET", "/v1/popular", "recommend", handlers.popular),
    Route("POST", "/v1/events", "events", handlers.events),
    Route("GET", "/v1/items/{item_id}", "recommend", item_handlers.show_item, finds_candidates=True),
    Route("PUT", "/v1/items/{item_id}", "items", item_handlers.put_item, finds_candidates=True),
    Route("DELETE", "/v1/items/{item_id}", "items", item_handlers.delete_item, finds_candidates=True),
    Route("POST", "/v1/items", "items", item_handlers.post_items, finds_candidates=True),
    Route("GET", "/v1/users/{user_id}", "users", known_user),
    Route("DELETE", "/v1/users/{user_id}", "erase", handlers.erase_user),
    Route("GET", "/v1/model", "recommend", handlers.model, finds_candidates=True),
    Route("GET", "/healthz", None, handlers.healthz, finds_candidates=True),
    Route("GET", "/readyz", None, handlers.readyz, finds_candidates=True),
    Route("GET", "/openapi.json", None, handlers.openapi, finds_candidates=True),
    Route("GET", "/docs", None, handlers.docs, finds_candidates=True),
)


def build_app(context: ReplicaContext) -> web.Application:
    """Return the application that answers callers."""
    app = web.Application(client_max_size=context.config.server.body_limit_bytes)
    app[CONTEXT] = context
    routes = [route for route in ROUTES if context.config.role != "candidates" or route.finds_candidates]
    for route in routes:
        answer = with_boundary(context, route.path, route.handler, route.scope)
        for name in _methods(route):
            app.router.add_route(name, _pattern(route.path), answer, expect_handler=handle_expect)
    # Order matters: the real methods, then 405 for the others, then the 404 catch-all.
    for path in dict.fromkeys(route.path for route in routes):
        # The other methods of this path are those for a user of this name.
        if path != _MANY_LISTS:
            answer = with_boundary(context, path, not_allowed(_methods_of))
            app.router.add_route("*", _pattern(path), answer, expect_handler=handle_expect)
    app.router.add_route("*", "/{path:.*}", with_boundary(context, "other", not_found), expect_handler=handle_expect)
    return app


def _methods(route: Route) -> tuple[str, ...]:
    # HEAD is GET without the body (RFC 9110 section 9.3.2), and records no served list.
    return ("GET", "HEAD") if route.method == "GET" else (route.method,)


def _methods_of(path: str) -> set[str]:
    """Return the methods of all routes that a path, decoded, matches."""
    return {
        name
        for route in ROUTES
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route.path), path)
        for name in _methods(route)
    }


def _pattern(path: str) -> str:
    """Return aiohttp's pattern of a path, with ids of any characters but a slash; the default excludes braces."""
    return path.replace("}", ":[^/]+}")
