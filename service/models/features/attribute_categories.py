"""The categories of one attribute: its texts, its flags and the bands of its numbers.

Invariant: a category is a function of the value alone: the same value has the same category in training, in serving,
and after the categories were read back from JSON. Pure.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import isfinite
from typing import Any, TypeAlias

from service.errors import ModelRefused
from service.models.items.record import AttributeValue

GivenValue: TypeAlias = AttributeValue | None
"""The value of an attribute; None says that it is unknown."""

_FLAG_TEXTS = {"false": False, "true": True}


@dataclass(frozen=True)
class AttributeCategories:
    """The categories of an attribute, from 1; 0 stands for an unknown value.

    Texts come first, then the flags false and true, then the bands of numbers.

    Attributes:
        name: The attribute.
        texts: The texts that are categories, ascending.
        has_flags: Whether false and true are categories.
        edges: The lowest number of each band but the first, ascending; None if no number is a category.
        is_multiple: Whether the attribute may have several texts at once.
    """

    name: str
    texts: tuple[str, ...] = ()
    has_flags: bool = False
    edges: tuple[float, ...] | None = None
    is_multiple: bool = False

    def __post_init__(self) -> None:
        """Check the order of the texts and the edges.

        Raises:
            ModelRefused: They do not ascend, or an edge is not finite.
        """
        edges = self.edges or ()
        if any(left >= right for left, right in pairwise(self.texts)):
            raise ModelRefused(f"The categories of the attribute {self.name!r} do not ascend.")
        if not all(map(isfinite, edges)) or any(left >= right for left, right in pairwise(edges)):
            raise ModelRefused(f"The bands of the attribute {self.name!r} do not ascend.")

    @cached_property
    def size(self) -> int:
        """The number of categories, without that of an unknown value."""
        return self._first_band - 1 + (0 if self.edges is None else len(self.edges) + 1)

    @cached_property
    def _first_band(self) -> int:
        return len(self.texts) + 1 + (2 if self.has_flags else 0)

    def categories_of(self, value: GivenValue) -> list[int]:
        """Return the known categories of a value: ascending, each once; empty if there is none."""
        if value is None:
            return []
        if isinstance(value, list):
            return sorted({category for text in value if (category := self._of_text(text))})
        if isinstance(value, str):
            category = self._of_text(value)
        elif not isinstance(value, bool):
            category = self._of_number(value)
        elif self.has_flags:
            category = len(self.texts) + 1 + value
        else:
            category = self._of_exact_text("true" if value else "false")
        return [category] if category else []

    def _of_text(self, text: str) -> int:
        """Return the category of a text; a number or a flag may be written as one, as in a file without types."""
        category = self._of_exact_text(text)
        if category or (self.edges is None and not self.has_flags):
            return category
        if self.has_flags and (flag := _FLAG_TEXTS.get(text.lower())) is not None:
            return len(self.texts) + 1 + flag
        try:
            return self._of_number(float(text)) if self.edges is not None else 0
        except ValueError:
            return 0

    def _of_exact_text(self, text: str) -> int:
        place = bisect_left(self.texts, text)
        return place + 1 if place < len(self.texts) and self.texts[place] == text else 0

    def _of_number(self, number: float) -> int:
        """Return the category of a number; without bands it may be the name of a category, such as a code."""
        value = as_float(number)
        if value is None:
            return 0
        if self.edges is None:
            return self._of_exact_text(str(int(value)) if value.is_integer() else repr(value))
        return self._first_band + bisect_right(self.edges, value)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "texts": list(self.texts),
            "flags": self.has_flags,
            "edges": None if self.edges is None else list(self.edges),
            "multiple": self.is_multiple,
        }

    @classmethod
    def from_json(cls, value: Any) -> "AttributeCategories":
        """Build them from `to_json()`.

        Raises:
            ModelRefused: A field is missing or of another type.
        """
        try:
            name, texts, edges = value["name"], tuple(value["texts"]), value["edges"]
            has_flags, is_multiple = value["flags"], value["multiple"]
            numbers = None if edges is None else tuple(map(float, edges))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelRefused(
                f"The categories of an attribute lack a value or have an invalid one: {error}."
            ) from None
        if not all(isinstance(text, str) for text in (name, *texts)):
            raise ModelRefused("The categories of an attribute have a name or a text that is no text.")
        if not (isinstance(has_flags, bool) and isinstance(is_multiple, bool)):
            raise ModelRefused(f"The categories of the attribute {name!r} do not say which kinds they have.")
        return cls(name, texts, has_flags, numbers, is_multiple)


def as_float(number: float) -> float | None:
    """Return a number as a finite float; None if it is none."""
    try:
        value = float(number)
    except OverflowError:  # an integer of more than 308 digits
        return None
    return value if isfinite(value) else None
