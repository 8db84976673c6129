"""What a person may set of an algorithm: fields of its frozen Config, each with bounds, a unit and a sentence.

Invariant: a Config that exists is within its bounds, whichever way it came about.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from service.errors import UsageError, did_you_mean

T = TypeVar("T")
Search = tuple[float, float] | tuple[float, float, Literal["log"]]
"""The least and the largest value worth trying, and whether steps are to be even on a logarithmic scale."""

_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def setting(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] | None = None,
    search: Search | None = None,
) -> Any:
    """Declare one field of a Config.

    Args:
        default: Its value where nobody says otherwise.
        doc: What it does, in one sentence.
        unit: What it counts in.
        least: The smallest value it may have.
        most: The largest one.
        choices: Of a text, the values it may have.
        search: Of a number, what a search tries unless it is told otherwise; None if it is not worth searching.
    """
    metadata = {"doc": doc, "unit": unit, "least": least, "most": most, "choices": choices, "search": search}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """What every Config is: a frozen dataclass whose fields come from `setting`."""

    def __post_init__(self) -> None:
        """Hold every field to its type and bounds.

        Raises:
            UsageError: A field is out of them.
        """
        _check(self)


def _check(config: Any) -> None:
    hints = typing.get_type_hints(type(config))
    for spec in dataclasses.fields(config):
        value = getattr(config, spec.name)
        kind, is_optional = _kind(hints[spec.name])
        if value is None and is_optional:
            continue
        is_of_kind = type(value) is kind or (kind is float and type(value) is int)
        if not is_of_kind or (kind is float and not math.isfinite(value)):
            raise UsageError(f"{spec.name} must be {_NAMES[kind]}, not {value!r}")
        choices = spec.metadata["choices"]
        if choices is not None and value not in choices:
            raise UsageError(f"{spec.name} must be {_listed(choices, 'or')}, not {value!r}")
        least, most = spec.metadata["least"], spec.metadata["most"]
        if (least is not None and value < least) or (most is not None and value > most):
            raise UsageError(f"{spec.name} must be {_range(least, most)}, not {value!r}")


def parse(cls: type[T], assignments: Iterable[str]) -> T:
    """Build a Config from `key=value` texts; of a key given twice the last counts.

    Args:
        cls: The Config.
        assignments: Such as "n_factors=50".

    Raises:
        UsageError: A text is no assignment, its key is no field of the Config, or its value is of another type or out
            of range.
    """
    hints = typing.get_type_hints(cls)
    names = [spec.name for spec in dataclasses.fields(cls)]  # type: ignore[arg-type]  # T is a dataclass by contract
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise UsageError(f"a setting is given as name=value, not as {assignment!r}")
        if name not in names:
            raise UsageError(f"there is no setting {name!r}{did_you_mean(name, names)}; there are {_listed(names)}")
        values[name] = _value(name, text, *_kind(hints[name]))
    return cls(**values)


def as_json(config: Any) -> dict[str, Any]:
    """Return a Config as plain JSON values."""
    return dataclasses.asdict(config)


def _value(name: str, text: str, kind: type, is_optional: bool) -> Any:  # noqa: FBT001  # what `_kind` returns
    if is_optional and text.lower() in {"", "none", "null"}:
        return None
    try:
        return _BOOLEANS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise UsageError(f"{name} must be {_NAMES[kind]}, not {text!r}") from None


def _kind(hint: Any) -> tuple[type, bool]:
    if isinstance(hint, types.UnionType):
        (kind,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
        return kind, True
    return hint, False


_NAMES: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _range(least: float | None, most: float | None) -> str:
    if most is None:
        return f"at least {least}"
    return f"at most {most}" if least is None else f"from {least} to {most}"


def _listed(names: Sequence[str], joined_by: str = "and") -> str:
    return ", ".join(names[:-1]) + f" {joined_by} {names[-1]}" if len(names) > 1 else names[0]
