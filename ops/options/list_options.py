"""Options of the verbs that print lists."""

from typing import Annotated, TypeAlias

import typer

from service.api import wire
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
