"""Pages rendered from `templates/`, and the values that tables and lists of a page are made of.

Invariant: a page loads nothing, runs nothing, and is readable in light, in dark, in print and 400 pixels wide. The
templates escape every value.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from service.errors import UsageError


@dataclass(frozen=True)
class Cell:
    """A table cell with a smaller text after its text; `kind` marks the best of a column or a significant value."""

    text: str
    small: str = ""
    kind: Literal["", "best", "significant"] = ""


@dataclass(frozen=True)
class Table:
    """A table; `left` are the columns aligned to the left."""

    heading: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    left: Sequence[int] = (0,)


def render(template: str, **values: Any) -> str:
    """Return a page, from a file in `templates/` and its variables."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ops.pages"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["in_words"] = in_words
    return environment


def write(path: Path, text: str) -> None:
    """Write a page.

    Raises:
        UsageError: It cannot be written there.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"The page {path} cannot be written: {error.strerror or error}.") from error


def require_writable(path: Path) -> None:
    """Check that a page can be written, before minutes of measuring.

    Raises:
        UsageError: It cannot be written.
    """
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise UsageError(f"The page {path} cannot be written.")


def data_name(source: str) -> str:
    """Return the name of a data set: its files and folders without the path that leads to them."""
    if source.partition(":")[0] in {"demo", "archive"}:
        return source
    names = (Path(part.strip()).expanduser() for part in source.split(" + "))
    return " + ".join(name.name or name.resolve().name or str(name) for name in names)


def spaced_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object of JSON with spaces in its keys, without nulls."""
    return {name.replace("_", " "): value for name, value in values.items() if value is not None}


def in_words(value: Any) -> str:
    """Return a value of JSON as text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {in_words(part)}" for name, part in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(in_words, value)) or "none"
    return str(value)
