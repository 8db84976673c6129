"""The OpenAPI document is valid and describes exactly the existing routes, scopes and errors."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from openapi_spec_validator import validate

from loadbalancer.nginx.problems import PROBLEMS
from service import errors
from service.api.docs_page import page
from service.api.openapi import document
from service.serving.app import ROUTES

ERRORS = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.RequestError)]


def described(*, keyed: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(document(keyed=keyed))
    return found


def operations(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method.upper(), path): one for path, item in found["paths"].items() for method, one in item.items()}


@pytest.mark.parametrize("keyed", [False, True])
def test_the_document_is_valid_openapi_3_1(keyed: bool) -> None:
    """A validator accepts it."""
    found = described(keyed=keyed)
    validate(found)
    assert found["openapi"] == "3.1.0"


def test_exactly_the_routes_are_described() -> None:
    """Except the document and its page, paths and methods equal the application's."""
    served = {(route.method, route.path) for route in ROUTES}
    found = set(operations(described()))
    assert served - found == {("GET", "/openapi.json"), ("GET", "/docs")}
    assert found <= served


def test_scopes_are_those_of_the_application() -> None:
    """With keys, every route with a scope requires one in either header."""
    scopes = {(route.method, route.path): route.scope for route in ROUTES}
    for keyed in (False, True):
        for where, operation in operations(described(keyed=keyed)).items():
            scope = scopes[where]
            schemes: list[dict[str, Any]] = [] if scope is None else [{"bearer": [scope]}, {"apiKey": [scope]}]
            assert operation["security"] == (schemes if keyed or scope is None else [{}, *schemes])
            assert {"401", "403"} & set(operation["responses"]) == (set() if scope is None else {"401", "403"})


def test_every_error_is_described() -> None:
    """Errors of the service somewhere, errors of nginx everywhere, and all of them in docs/api.md."""
    found = operations(described())
    everywhere = set.intersection(*(set(one["responses"]) for where, one in found.items() if where[1] != "/healthz"))
    for problem in PROBLEMS:
        assert str(problem.status) in everywhere or problem.status == 404, problem
    somewhere = {status for one in found.values() for status in one["responses"]}
    assert {str(error.status) for error in ERRORS} <= somewhere
    table = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    rows = re.findall(r"^\| ([0-9, ]+) \| `(/problems/[a-z-]+)` \|", table, re.MULTILINE)
    documented = {(int(status), kind) for statuses, kind in rows for status in statuses.split(",")}
    assert {(problem.status, f"/problems/{problem.name}") for problem in PROBLEMS} <= documented
    assert {(error.status, f"/problems/{error.name}") for error in ERRORS} <= documented
    assert {str(status) for status, _ in documented} <= somewhere


def test_only_needed_fields_are_required() -> None:
    """No field has a default, which generators would make required; an event needs a type, a user and an item."""
    schemas = described()["components"]["schemas"]
    assert schemas["EventIn"]["required"] == ["type", "user_id", "item_id"]
    assert "required" not in schemas["RecommendationsRequest"]
    for name in ("EventIn", "EventsRequest", "RecommendationsRequest"):
        assert [field for field, schema in schemas[name]["properties"].items() if "default" in schema] == []


def test_every_field_is_typed_and_described() -> None:
    """Enumerations list their values, and numbers their bounds."""
    schemas = described()["components"]["schemas"]
    for name, schema in schemas.items():
        for field, one in schema["properties"].items():
            assert {"type", "$ref", "anyOf"} & set(one), (name, field)
            assert one.get("description"), (name, field)
    fields = {name: schema["properties"] for name, schema in schemas.items()}
    for name, field, most in (("EventIn", "position", 15_500), ("RecommendationsRequest", "n", 500)):
        assert fields[name][field]["maximum"] == most
    assert fields["Item"]["source"]["enum"] == ["personal", "session", "similar", "popular", "pinned"]
    levels = ["stale", "stale_model", "popular_candidates", "trained", "cluster", "popular", "static", None]
    assert fields["Recommendations"]["degraded"]["enum"] == levels
    assert fields["Accepted"]["durability"]["enum"] == ["disk"]
    assert fields["Model"]["n_users"]["type"] == "integer"
    assert fields["Model"]["data"]["$ref"] == "#/components/schemas/DataSet"


@pytest.mark.parametrize(
    ("text", "is_id"),
    [
        ("a", True),
        ("a/b {é} 💡", True),
        ("x" * 128, True),
        ("", False),
        ("x" * 129, False),
        ("a\x00", False),
        ("\x9f", False),
        ("a\x7fb", False),
    ],
)
def test_ids_have_a_pattern(text: str, is_id: bool) -> None:
    """The same in bodies and paths, and the one that is enforced."""
    found = described()
    pattern = found["components"]["schemas"]["EventIn"]["properties"]["user_id"]["pattern"]
    (parameter,) = found["paths"]["/recommend/{user_id}"]["get"]["parameters"]
    assert parameter["schema"]["pattern"] == pattern
    assert bool(re.search(pattern, text)) is is_id


def test_the_effect_of_a_call_is_described() -> None:
    """The page warns before a call that changes data, and notes that lists are recorded as shown."""
    found = operations(described())
    writing = {where for where, one in found.items() if one.get("x-writes")}
    assert writing == {(route.method, route.path) for route in ROUTES if route.scope in {"events", "erase", "items"}}
    assert ("DELETE", "/v1/users") in writing
    listing = {where for where, one in found.items() if "x-effect" in one} - writing
    shown = {("GET", "/v1/model"), ("GET", "/v1/items"), ("GET", "/v1/items/{item_id}"), ("POST", "/v1/candidates")}
    assert listing == {(route.method, route.path) for route in ROUTES if route.scope == "recommend"} - shown


def test_the_page_has_a_phrase_for_every_status() -> None:
    """HTTP/2 sends no phrases; and names in tables do not wrap."""
    text = page().decode()
    phrases = dict(re.findall(r"(\d{3}): \"([A-Za-z -]+)\"", text))
    assert phrases["202"] == "Accepted"
    assert {status for one in operations(described()).values() for status in one["responses"]} <= set(phrases)
    assert not re.search(r"word-break|overflow-wrap: anywhere", text)


def test_the_page_loads_nothing_from_other_sites() -> None:
    """It works on a machine without internet access."""
    text = page().decode()
    assert not re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text)
    assert "openapi.json" in text
