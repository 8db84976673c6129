"""The application factory: a table of contents, no logic."""

from typing import Final, NamedTuple

from aiohttp import web

from service.security.api_key import Scope
from service.serving import handlers
from service.serving.boundary import Handler, bounded, not_allowed, not_found
from service.serving.context import CONTEXT, ReplicaContext
from service.serving.protocol import expect


class Route(NamedTuple):
    """One route: what asks for it, what a caller's key must be for (None: nothing is asked), and what answers."""

    method: str
    path: str
    scope: Scope | None
    handler: Handler


ROUTES: Final = (
    Route("GET", "/recommend/{user_id}", "recommend", handlers.recommend_plain),
    Route("GET", "/v1/recommendations/{user_id}", "recommend", handlers.recommend_get),
    Route("POST", "/v1/recommendations", "recommend", handlers.recommend_post),
    Route("GET", "/v1/items/{item_id}/similar", "recommend", handlers.similar),
    # Ids in the query, for those that no path takes through nginx or a browser: ../.. leads above the root.
    Route("GET", "/recommend", "recommend", handlers.recommend_plain),
    Route("GET", "/v1/recommendations", "recommend", handlers.recommend_get),
    Route("GET", "/v1/items/similar", "recommend", handlers.similar),
    Route("DELETE", "/v1/users", "erase", handlers.forget),
    Route("GET", "/v1/popular", "recommend", handlers.popular),
    Route("POST", "/v1/events", "events", handlers.events),
    Route("DELETE", "/v1/users/{user_id}", "erase", handlers.forget),
    Route("GET", "/v1/model", "recommend", handlers.model),
    Route("GET", "/healthz", None, handlers.healthz),
    Route("GET", "/readyz", None, handlers.readyz),
    Route("GET", "/openapi.json", None, handlers.openapi),
    Route("GET", "/docs", None, handlers.docs),
)


def build_app(context: ReplicaContext) -> web.Application:
    """Return the application that answers callers."""
    app = web.Application(client_max_size=context.config.server.body_limit_bytes)
    app[CONTEXT] = context
    methods: dict[str, list[str]] = {}
    for route in ROUTES:
        answer = bounded(context, route.path, route.handler, route.scope)
        # RFC 9110 section 9.3.2: HEAD is GET without its body. What is not shown is not recorded as served.
        for name in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            app.router.add_route(name, _pattern(route.path), answer, expect_handler=expect)
            methods.setdefault(route.path, []).append(name)
    # In this order: a path's other methods behind its own, and what nothing matches behind everything.
    for path, known in methods.items():
        app.router.add_route("*", _pattern(path), bounded(context, path, not_allowed(known)), expect_handler=expect)
    app.router.add_route("*", "/{path:.*}", bounded(context, "other", not_found), expect_handler=expect)
    return app


def _pattern(path: str) -> str:
    """Return aiohttp's pattern of a path whose ids may hold anything but a slash; its own excludes braces."""
    return path.replace("}", ":[^/]+}")
