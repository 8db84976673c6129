"""Settings of every package: frozen dataclasses of annotated fields, parsed, checked and listed here.

A field is declared as `name: Annotated[kind, {...}, "What it does."] = default`. The dictionary may have these keys:

    env: The environment variable. A hyperparameter has none; it is given as `name=value`.
    unit: The unit of the value.
    least, most: The bounds of a number, both included. A number with an `env` and no `least` is above 0.
    choices: The words that a text may be.
    search: The range that a hyperparameter search tries by default, as (low, high) or (low, high, "log").

A plain dictionary needs no import, so telemetry and the balancer declare settings without importing this package.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from service.errors import UsageError

T = TypeVar("T")
Search = tuple[float, float] | tuple[float, float, Literal["log"]]

_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_NOUNS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Declared:
    """One declared setting.

    Attributes:
        name: The name of the field.
        kind: The type of the value.
        is_optional: Whether the value may be None.
        default: The value of the field where none is given.
        doc: The effect of the setting, in one sentence.
        env, unit, least, most, choices, search: See the module.
    """

    name: str
    kind: type
    is_optional: bool
    default: Any
    doc: str
    env: str | None = None
    unit: str = ""
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] | None = None
    search: Search | None = None

    @property
    def label(self) -> str:
        """The name of the setting in messages."""
        return self.env or self.name

    def parse(self, text: str) -> Any:
        """Read the value from a text, without checking its bounds.

        Raises:
            UsageError: The text is not of the setting's kind.
        """
        if self.is_optional and text.lower() in {"", "none", "null"}:
            return None
        try:
            return _BOOLEANS[text.lower()] if self.kind is bool else self.kind(text)
        except (KeyError, ValueError):
            raise UsageError(f"{self.label} must be {self._noun}, not {text!r}.") from None

    def check(self, value: Any) -> None:
        """Check the type, the bounds and the choices of a value.

        Raises:
            UsageError: The value is outside them.
        """
        if value is None and self.is_optional:
            return
        if not isinstance(value, (float, int) if self.kind is float else self.kind) or (
            isinstance(value, bool) and self.kind is not bool
        ):
            raise UsageError(f"{self.label} must be {self._noun}, not {value!r}.")
        if self.choices is not None and value not in self.choices:
            raise UsageError(f"{self.label} must be {enumerated(self.choices, 'or')}, not {value!r}.")
        if self.kind in {int, float} and not self._is_allowed(value):
            raise UsageError(f"{self.label} must be {self._allowed}, not {value}.")

    @property
    def _noun(self) -> str:
        return _NOUNS.get(self.kind, f"a {self.kind.__name__}")

    def _is_allowed(self, number: Any) -> bool:
        above_least = number >= self.least if self.least is not None else self.env is None or number > 0
        return above_least and (self.most is None or number <= self.most) and math.isfinite(number)

    @property
    def _allowed(self) -> str:
        if self.least is None:
            bounds = ["above 0"] if self.env else []
        elif self.most is not None:
            return f"from {self.least} to {self.most}"
        else:
            bounds = [f"at least {self.least}"]
        bounds.append("finite" if self.most is None else f"at most {self.most}")
        return " and ".join(bounds)


def declared(cls: type[Any]) -> Iterator[Declared]:
    """Yield the settings of a dataclass and of the dataclasses that it holds, in order of declaration."""
    for spec, hint in _fields(cls):
        if dataclasses.is_dataclass(hint):
            yield from declared(typing.cast("type[Any]", hint))
        else:
            yield _declared(spec, hint)


def read(cls: type[T], environ: Mapping[str, str]) -> T:
    """Build a dataclass of settings, and those that it holds, from the environment.

    Args:
        cls: The dataclass.
        environ: The environment. An empty value counts as absent.

    Raises:
        UsageError: A value is of the wrong kind or out of bounds.
    """
    values: dict[str, Any] = {}
    for spec, hint in _fields(cls):
        if dataclasses.is_dataclass(hint):
            values[spec.name] = read(typing.cast("type[Any]", hint), environ)
            continue
        setting = _declared(spec, hint)
        if text := environ.get(setting.label, ""):
            values[spec.name] = setting.parse(text)
            setting.check(values[spec.name])
    return cls(**values)


def enumerated(words: typing.Sequence[str], joined_by: str = "and") -> str:
    """Return "a, b and c"."""
    return ", ".join(words[:-1]) + f" {joined_by} {words[-1]}" if len(words) > 1 else words[0]


def _fields(cls: type[Any]) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return ((spec, hints[spec.name]) for spec in dataclasses.fields(cls))


def _declared(spec: dataclasses.Field[Any], hint: Any) -> Declared:
    if typing.get_origin(hint) is not Annotated:
        raise TypeError(f"{spec.name} is not declared as Annotated[kind, {{...}}, sentence].")
    kind, options, doc = typing.get_args(hint)
    is_optional = isinstance(kind, types.UnionType)
    if is_optional:
        (kind,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
    return Declared(spec.name, kind, is_optional, spec.default, doc, **options)
