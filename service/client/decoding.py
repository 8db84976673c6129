"""JSON values as the frozen dataclasses of `answers` (pure)."""

import dataclasses
import types
import typing
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


class Undecodable(ValueError):
    """A value lacks a field, or a field has another type; the text names it."""


def decoded(cls: type[T], value: Any) -> T:
    """Build a dataclass from a JSON object; fields that it does not have are ignored.

    Raises:
        Undecodable: A field without a default is missing, or a field is of another type.
    """
    if not isinstance(value, dict):
        raise Undecodable(f"{cls.__name__} is {type(value).__name__} and no object")
    found = {}
    fields: tuple[tuple[str, Any, bool], ...] = _fields(cls)  # type: ignore[arg-type]  # a class is hashable
    for name, kind, is_required in fields:
        if name in value:
            found[name] = _field(f"{cls.__name__}.{name}", kind, value[name])
        elif is_required:
            raise Undecodable(f"{cls.__name__}.{name} is missing")
    return cls(**found)


@cache
def _fields(cls: type[Any]) -> tuple[tuple[str, Any, bool], ...]:
    """Return name, type and whether it is required of each field."""
    hints = typing.get_type_hints(cls)
    return tuple((one.name, hints[one.name], one.default is dataclasses.MISSING) for one in dataclasses.fields(cls))


def _field(name: str, kind: Any, value: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin in {typing.Union, types.UnionType}:
        if value is None:
            return None
        # The unions of answers are of one type and None.
        (kind,) = (each for each in typing.get_args(kind) if each is not types.NoneType)
        return _field(name, kind, value)
    if dataclasses.is_dataclass(kind):
        return decoded(typing.cast("type[Any]", kind), value)
    if origin is tuple:
        if not isinstance(value, list):
            raise Undecodable(f"{name} is no list")
        (each_kind, _) = typing.get_args(kind)
        return tuple(_field(name, each_kind, each) for each in value)
    expected = dict if origin is not None else kind
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise Undecodable(f"{name} is of type {type(value).__name__}")
    return value
