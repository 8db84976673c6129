"""The application factory: a table of contents, no logic."""

from __future__ import annotations

from aiohttp import web

from service import handlers
from service.boundary import boundary
from service.parts import PARTS, Parts

ROUTES = (
    web.get("/recommend/{user_id}", handlers.recommend_plain, allow_head=False),
    web.get("/v1/recommendations/{user_id}", handlers.recommend_get, allow_head=False),
    web.post("/v1/recommendations", handlers.recommend_post),
    web.get("/v1/items/{item_id}/similar", handlers.similar, allow_head=False),
    web.get("/v1/popular", handlers.popular, allow_head=False),
    web.post("/v1/events", handlers.events),
    web.get("/v1/model", handlers.model),
    web.get("/healthz", handlers.healthz),
    web.get("/readyz", handlers.readyz),
    web.get("/openapi.json", handlers.openapi),
    web.get("/docs", handlers.docs),
)


def build_app(parts: Parts) -> web.Application:
    """Return the application that answers callers."""
    app = web.Application(middlewares=[boundary], client_max_size=parts.config.server.body_limit_bytes)
    app[PARTS] = parts
    app.add_routes(ROUTES)
    return app
