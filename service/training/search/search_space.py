"""The search space: for each searched hyperparameter a range or a list of values (pure).

Invariant: every value of a `Space` is within the bounds that the algorithm's Config declares, and no hyperparameter is
both searched and fixed. The Config checks a combination of values when a trial is made.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from service.declared_settings import declared
from service.errors import UsageError
from service.training import hyperparameters
from service.training.algorithms import registry

Value: TypeAlias = bool | int | float | str | None
HyperparameterValues: TypeAlias = Mapping[str, Value]

# A grid has this many values of a range.
GRID_POINTS: Final = 5
MAX_GRID_POINTS: Final = 100_000


@dataclass(frozen=True)
class Range:
    """Every number from `low` to `high`, both ints if the hyperparameter is a whole number."""

    low: float  # the least
    high: float  # the largest
    log: bool = False  # whether steps are even on a logarithmic scale

    def grid(self) -> tuple[Value, ...]:
        """Return at most `GRID_POINTS` numbers, evenly spaced, both ends among them, ascending."""
        spaced = np.geomspace if self.log else np.linspace
        points = spaced(self.low, self.high, GRID_POINTS).tolist()
        if isinstance(self.low, int):
            return tuple(sorted({round(point) for point in points}))
        # Logarithms do not return the ends exactly, and a value outside its bounds is refused.
        return tuple(dict.fromkeys((self.low, *points[1:-1], self.high)))

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return f"{text_of(self.low)}..{text_of(self.high)}{':log' if self.log else ''}"


@dataclass(frozen=True)
class Choices:
    """A list of values: at least one, all different."""

    values: tuple[Value, ...]

    def grid(self) -> tuple[Value, ...]:
        """Return the values."""
        return self.values

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"values": list(self.values)}

    def __str__(self) -> str:
        return ",".join(map(text_of, self.values))


Dimension: TypeAlias = Range | Choices
Space: TypeAlias = Mapping[str, Dimension]


def parse(algorithm: str, texts: Sequence[str], fixed: Sequence[str]) -> Space:
    """Parse the spaces given on a command line, or return the algorithm's recommended ranges.

    Args:
        algorithm: Its name, or a preset's.
        texts: `name=low..high`, `name=low..high:log` or `name=a,b,c`; none for the recommended ranges.
        fixed: `name=value` texts of hyperparameters that are not searched.

    Raises:
        UsageError: The algorithm or hyperparameter is unknown, a text has another form, or a value is out of range.
    """
    config = _config(algorithm, fixed)
    fixed_names = {text.partition("=")[0].strip() for text in fixed}
    if not texts:
        space = {name: range_ for name, range_ in _recommended(config).items() if name not in fixed_names}
        if not space:
            raise UsageError(f"{algorithm} has no ranges of its own to search: give one with --space name=low..high.")
        return space
    space = {}
    for text in texts:
        name, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not values:
            raise UsageError(f"A space is given as name=low..high, name=low..high:log or name=a,b,c, not as {text!r}.")
        if name in fixed_names:
            raise UsageError(f"{name} is both fixed and searched.")
        if name in space:
            raise UsageError(f"{name} is given two spaces.")
        space[name] = _range(config, name, values) if ".." in values else _choices(config, name, values)
    return space


def grid(space: Space) -> list[dict[str, Value]]:
    """Return every combination of values; the last hyperparameter changes first, a range has `GRID_POINTS` values.

    Raises:
        UsageError: There are more than `MAX_GRID_POINTS`.
    """
    columns = [dimension.grid() for dimension in space.values()]
    n = math.prod(map(len, columns))
    if n > MAX_GRID_POINTS:
        raise UsageError(
            f"A grid of {n:,} points is too large; the limit is {MAX_GRID_POINTS:,}: search fewer hyperparameters."
        )
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*columns)]


def assignments(values: HyperparameterValues) -> list[str]:
    """Return values as the `name=value` texts that `ConfiguredAlgorithm.parse` reads back exactly."""
    return [f"{name}={text_of(value)}" for name, value in values.items()]


def text_of(value: Value) -> str:
    """Return a value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def _config(algorithm: str, texts: Iterable[str]) -> Any:
    return registry.ConfiguredAlgorithm.parse(algorithm, texts).config


def _recommended(config: Any) -> dict[str, Dimension]:
    space: dict[str, Dimension] = {}
    for spec in declared(type(config)):
        found = spec.search
        if found is not None:
            ends, scale = f"{text_of(found[0])}..{text_of(found[1])}", ":log" if len(found) == 3 else ""
            space[spec.name] = _range(config, spec.name, ends + scale)
    return space


def _value(config: Any, name: str, text: str) -> Value:
    # Only the Config knows types and bounds, so it parses each value.
    value: Value = getattr(hyperparameters.parse(type(config), [f"{name}={text}"]), name)
    return value


def _range(config: Any, name: str, text: str) -> Range:
    ends, colon, scale = text.partition(":")
    low, high = (_value(config, name, end.strip()) for end in ends.split("..", 1))
    if colon and scale.strip() != "log":
        raise UsageError(f"{name} has an unknown scale {scale.strip()!r}: a range is low..high or low..high:log.")
    if isinstance(low, (bool, str, type(None))) or isinstance(high, (bool, str, type(None))):
        raise UsageError(f"{name} has no range from {text_of(low)} to {text_of(high)}: give its values as a,b,c.")
    if not low < high:
        raise UsageError(f"The range of {name} must end above {low:g}, not at {high:g}.")
    if colon and low <= 0:
        raise UsageError(f"A logarithmic range of {name} must begin above 0, not at {low:g}.")
    return Range(low, high, log=bool(colon))


def _choices(config: Any, name: str, text: str) -> Choices:
    return Choices(tuple(dict.fromkeys(_value(config, name, part.strip()) for part in text.split(","))))
