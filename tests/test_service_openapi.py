"""The API's description is valid and describes exactly the routes there are."""

from __future__ import annotations

import re

import orjson
from openapi_spec_validator import validate

from service.app import ROUTES
from service.openapi import document, page


def test_the_document_is_valid_openapi_3_1() -> None:
    """Any generator of clients can read it."""
    described = orjson.loads(document())
    validate(described)
    assert described["openapi"] == "3.1.0"


def test_every_route_is_described_and_nothing_else() -> None:
    """The document and its page aside, paths and methods are the application's own."""
    described = {(method.upper(), path) for path, item in orjson.loads(document())["paths"].items() for method in item}
    served = {(route.method, route.path) for route in ROUTES}
    assert served - described == {("GET", "/openapi.json"), ("GET", "/docs")}
    assert described <= served


def test_the_page_needs_no_other_site() -> None:
    """No address of elsewhere: it works on a machine without a way out."""
    text = page().decode()
    assert not re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text)
    assert "openapi.json" in text
