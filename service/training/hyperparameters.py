"""Hyperparameters of an algorithm: the fields of its frozen Config, declared as `service.declared_settings` says.

Invariant: a Config that exists is within its bounds, however it was made.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from service.declared_settings import declared, enumerated
from service.errors import UsageError, did_you_mean

T = TypeVar("T")


@dataclass(frozen=True)
class Hyperparameters:
    """The base of every Config."""

    def __post_init__(self) -> None:
        """Check the type and the bounds of every field.

        Raises:
            UsageError: A field is outside them.
        """
        for setting in declared(type(self)):
            setting.check(getattr(self, setting.name))


def parse(cls: type[T], assignments: Iterable[str]) -> T:
    """Build a Config from `name=value` texts. The last text of a name counts.

    Args:
        cls: The Config.
        assignments: Texts such as "n_factors=50".

    Raises:
        UsageError: A text is no assignment, its name is no field of the Config, or its value is of another type or out
            of bounds.
    """
    settings = {setting.name: setting for setting in declared(cls)}
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise UsageError(f"A setting is given as name=value, not as {assignment!r}.")
        if name not in settings:
            hint = did_you_mean(name, settings)
            raise UsageError(f"There is no setting {name!r}{hint}; the settings are {enumerated(list(settings))}.")
        values[name] = settings[name].parse(text)
    return cls(**values)


def from_json(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build a Config from its `as_json`, perhaps of another release: what is missing has its default.

    Raises:
        UsageError: A value is out of bounds, or its name is no field of the Config.
    """
    settings = {setting.name for setting in declared(cls)}
    if unknown := [name for name in values if name not in settings]:
        raise UsageError(f"There is no setting {unknown[0]!r}; the settings are {enumerated(sorted(settings))}.")
    return cls(**values)


def as_json(config: Any) -> dict[str, Any]:
    """Return a Config as plain JSON values."""
    return dataclasses.asdict(config)
