"""The application factory: a table of contents, no logic."""

import re
from typing import Final, NamedTuple

from aiohttp import web

from service.security.api_key import Scope
from service.serving.http.boundary import Handler, not_allowed, not_found, with_boundary
from service.serving.http.protocol import handle_expect
from service.serving.replica.context import CONTEXT, ReplicaContext
from service.serving.routes import candidates, events, items, lists, search, status, users


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
    Route("GET", "/recommend/{user_id}", "recommend", lists.recommend_plain),
    Route("GET", "/v1/recommendations/{user_id}", "recommend", lists.recommend_get),
    Route("POST", "/v1/recommendations", "recommend", lists.recommend_post),
    Route("POST", _MANY_LISTS, "recommend", lists.recommend_many),
    Route("POST", "/v1/candidates", "recommend", candidates.candidates, finds_candidates=True),
    Route("GET", "/v1/items/{item_id}/similar", "recommend", lists.similar, finds_candidates=True),
    # The same with the id in the query. Ids such as ../.. cannot be in a path: nginx and browsers resolve them.
    Route("GET", "/recommend", "recommend", lists.recommend_plain),
    Route("GET", "/v1/recommendations", "recommend", lists.recommend_get),
    Route("GET", "/v1/items/similar", "recommend", lists.similar, finds_candidates=True),
    Route("GET", "/v1/items", "recommend", search.items_by_query, finds_candidates=True),
    Route("PUT", "/v1/items", "items", items.put_item, finds_candidates=True),
    Route("DELETE", "/v1/items", "items", items.delete_item, finds_candidates=True),
    Route("GET", "/v1/users", "users", users.known_user),
    Route("DELETE", "/v1/users", "erase", users.erase_user),
    Route("GET", "/v1/popular", "recommend", lists.popular),
    Route("POST", "/v1/events", "events", events.events),
    Route("GET", "/v1/items/{item_id}", "recommend", items.show_item, finds_candidates=True),
    Route("PUT", "/v1/items/{item_id}", "items", items.put_item, finds_candidates=True),
    Route("DELETE", "/v1/items/{item_id}", "items", items.delete_item, finds_candidates=True),
    Route("POST", "/v1/items", "items", items.post_items, finds_candidates=True),
    Route("GET", "/v1/users/{user_id}", "users", users.known_user),
    Route("DELETE", "/v1/users/{user_id}", "erase", users.erase_user),
    Route("GET", "/v1/model", "recommend", status.model, finds_candidates=True),
    Route("GET", "/healthz", None, status.healthz, finds_candidates=True),
    Route("GET", "/readyz", None, status.readyz, finds_candidates=True),
    Route("GET", "/openapi.json", None, status.openapi, finds_candidates=True),
    Route("GET", "/docs", None, status.docs, finds_candidates=True),
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
