"""The application factory: a table of contents, no logic."""

from __future__ import annotations

from aiohttp import web

from service import handlers
from service.boundary import Handler, bounded, not_allowed, not_found
from service.parts import PARTS, Parts
from service.protocol import expect

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/recommend/{user_id}", handlers.recommend_plain),
    ("GET", "/v1/recommendations/{user_id}", handlers.recommend_get),
    ("POST", "/v1/recommendations", handlers.recommend_post),
    ("GET", "/v1/items/{item_id}/similar", handlers.similar),
    ("GET", "/v1/popular", handlers.popular),
    ("POST", "/v1/events", handlers.events),
    ("DELETE", "/v1/users/{user_id}", handlers.forget),
    ("GET", "/v1/model", handlers.model),
    ("GET", "/healthz", handlers.healthz),
    ("GET", "/readyz", handlers.readyz),
    ("GET", "/openapi.json", handlers.openapi),
    ("GET", "/docs", handlers.docs),
)


# GET routes that only look, so that HEAD can be answered as RFC 9110 section 9.3.2 asks; a list is served, and
# recorded.
_LOOKING: frozenset[str] = frozenset({"/v1/model", "/healthz", "/readyz", "/openapi.json", "/docs"})


def build_app(parts: Parts) -> web.Application:
    """Return the application that answers callers."""
    app = web.Application(client_max_size=parts.config.server.body_limit_bytes)
    app[PARTS] = parts
    methods: dict[str, list[str]] = {}
    for method, path, handler in ROUTES:
        for name in (method, "HEAD") if path in _LOOKING else (method,):
            app.router.add_route(name, _pattern(path), bounded(parts, path, handler), expect_handler=expect)
            methods.setdefault(path, []).append(name)
    # In this order: a path's other methods behind its own, and what nothing matches behind everything.
    for path, known in methods.items():
        app.router.add_route("*", _pattern(path), bounded(parts, path, not_allowed(known)), expect_handler=expect)
    app.router.add_route("*", "/{path:.*}", bounded(parts, "other", not_found), expect_handler=expect)
    return app


def _pattern(path: str) -> str:
    """Return aiohttp's pattern of a path whose ids may hold anything but a slash; its own excludes braces."""
    return path.replace("}", ":[^/]+}")
