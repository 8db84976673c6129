"""The schemas of /openapi.json, generated from the types of `service.api.wire`."""

from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from service.api import candidate_wire, item_wire, list_bodies, model_wire, search_wire, user_wire, wire

_REF: Final = "#/components/schemas/{model}"
_ANSWERS: Final = {
    "Recommendations": wire.Recommendations,
    "ManyRecommendations": wire.ManyRecommendations,
    "Candidates": candidate_wire.Candidates,
    "KnownUser": user_wire.KnownUser,
    "Accepted": wire.Accepted,
    "ItemDetails": item_wire.ItemDetails,
    "FoundItems": search_wire.FoundItems,
    "ItemReceipt": item_wire.ItemReceipt,
    "ItemsAccepted": item_wire.ItemsAccepted,
    "Erasure": wire.Erasure,
    "Model": model_wire.ServedModel,
    "Problem": wire.Problem,
}


def ref(name: str) -> dict[str, str]:
    """Return a reference to a schema."""
    return {"$ref": _REF.format(model=name)}


def schemas() -> dict[str, Any]:
    """Return every schema by name."""
    _, bodies = models_json_schema(
        [
            (list_bodies.RecommendationsRequest, "validation"),
            (list_bodies.ManyRecommendationsRequest, "validation"),
            (candidate_wire.CandidatesRequest, "validation"),
            (wire.EventsRequest, "validation"),
            (item_wire.ItemRecordIn, "validation"),
            (item_wire.ItemsRequest, "validation"),
        ],
        ref_template=_REF,
    )
    found: dict[str, Any] = dict(bodies["$defs"])
    for name, answer in _ANSWERS.items():
        schema = TypeAdapter(answer).json_schema(mode="serialization", ref_template=_REF)
        found.update(schema.pop("$defs", {}))
        found[name] = schema
    return {name: _plain(schema) for name, schema in found.items()}


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Return an object's schema as client generators need it.

    Defaults are only in the descriptions, because generators make a field with a default required. A nullable field has
    two types instead of pydantic's choice of two schemas. Titles, which repeat the names, are removed.
    """
    properties = {name: _field(field) for name, field in schema["properties"].items()}
    return {name: value for name, value in schema.items() if name != "title"} | {"properties": properties}


def _field(field: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in field.items() if name not in {"default", "title", "anyOf", "const"}}
    if "const" in field:
        plain["enum"] = [field["const"]]
    choices: list[dict[str, Any]] = field.get("anyOf", [])
    if len(choices) == 2 and choices[1] == {"type": "null"} and "type" in choices[0]:
        nullable = {**choices[0], "type": [choices[0]["type"], "null"]}
        if "enum" in nullable:
            nullable["enum"] = [*nullable["enum"], None]
        return {**nullable, **plain}
    return {**plain, "anyOf": choices} if choices else plain
