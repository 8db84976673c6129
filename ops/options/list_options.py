"""Options of the verbs that print lists."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import typer

from service.api import item_wire, wire
from service.errors import UsageError

LengthOption: TypeAlias = Annotated[int, typer.Option("--n", "-n", min=1, max=wire.N_LIMIT, help="How many items.")]
FilterOption: TypeAlias = Annotated[
    str | None, typer.Option("--filter", metavar="EXPRESSION", help="As 'genre == \"Comedy\" and year >= 1990'.")
]
FieldsOption: TypeAlias = Annotated[
    str, typer.Option("--fields", metavar="NAMES", help="What to show of each item, as title,genres,year.")
]
ExplainOption: TypeAlias = Annotated[
    int,
    typer.Option("--explain", min=0, max=wire.EXPLAIN_LIMIT, help="Name so many items of the history for each item."),
]

FeatureOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--feature", metavar="NAME=VALUE", help="Of the user, as age=27 or favourite_genres=Drama; repeatable."
    ),
]


def features(given: Sequence[str]) -> dict[str, Any] | None:
    """Return the features of a user by name; values are JSON, or else texts; None without any.

    Raises:
        UsageError: A feature has no name or no value, or is of another form.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"--feature has {text!r}: give NAME=VALUE, as age=27.")
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        try:
            found[item_wire.checked_name(name)] = None if parsed is None else item_wire.checked_value(parsed)
        except ValueError as error:
            raise UsageError(f"--feature has {text!r}, which {error}.") from None
    return found or None


def field_names(text: str) -> list[str]:
    """Return the names in a text with commas.

    Raises:
        UsageError: One is no name of a field.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if not wire.valid_name(name):
            raise UsageError(f"--fields: {name!r} {wire.NAME_RULE}.")
    return names
