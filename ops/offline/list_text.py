"""A list as text for a terminal (pure)."""

from collections.abc import Mapping
from typing import Any

from ops.console.table import table
from service.api import wire

TITLE = "title"


def list_text(answer: wire.Recommendations, fields: list[str]) -> str:
    """Return a list as a table: place, id, the requested fields, score and source, and why each item is there."""
    items = answer["items"]
    has_why = any("because" in item for item in items)
    rows = []
    for place, item in enumerate(items, 1):
        values = item.get("fields", {})
        why = [_because(item.get("because"))] if has_why else []
        rows.append(
            [
                *(str(place), item["item_id"]),
                *(value_text(values.get(name)) for name in fields),
                *(f"{item['score']:.4g}", item["source"]),
                *why,
            ]
        )
    headings = ["", "item", *fields, "score", "source", *(["because"] if has_why else [])]
    left = [column for column, name in enumerate(headings) if name not in {"", "score"}]
    return table(headings, rows, left=left) if rows else "No item."


def value_text(value: Any) -> str:
    """Return the value of a field."""
    if value is None:
        return "-"
    return ", ".join(value) if isinstance(value, list) else str(value)


def named(item_id: str, title: str | None) -> str:
    """Return an item as "title (id)", or its id alone."""
    return item_id if title is None else f"{title} ({item_id})"


def _because(because: Mapping[str, Any] | None) -> str:
    if because is None:
        return "-"
    shares = []
    for each in because["items"]:
        title = each.get("fields", {}).get(TITLE)
        shares.append(f"{title or each['item_id']} {each['share']:.2g}")
    return "; ".join(shares) or "-"
