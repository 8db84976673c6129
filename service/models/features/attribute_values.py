"""The values of one attribute over many users or items, and the categories that are chosen from them.

A text is a category if enough users or items have it. Numbers of few distinct values have a band for each of them, as
codes and published age groups do; others have bands of equal numbers of users or items. Pure.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from service.models.features.attribute_categories import AttributeCategories, GivenValue, as_float

# The most texts of an attribute that are categories, the most frequent ones.
MAX_TEXTS: Final = 10_000
# Of numbers with more distinct values a band is a range.
_MAX_OWN_BANDS: Final = 32
_MAX_RANGES: Final = 16


@dataclass
class AttributeValues:
    """The values of an attribute, counted."""

    texts: Counter[str] = field(default_factory=Counter)
    numbers: list[float] = field(default_factory=list)
    n_flags: int = 0
    n_lists: int = 0

    def add(self, value: GivenValue) -> None:
        """Count the value of a user or an item."""
        if isinstance(value, str):
            self.texts[value] += 1
        elif isinstance(value, bool):
            self.n_flags += 1
        elif isinstance(value, int | float):
            number = as_float(value)
            if number is not None:
                self.numbers.append(number)
        elif value is not None:
            self.texts.update(set(value))
            self.n_lists += 1

    def categories(self, name: str, least: int, max_texts: int = MAX_TEXTS) -> AttributeCategories | None:
        """Return the categories of the attribute; None if no value has one.

        Args:
            name: The attribute.
            least: How many users or items a category must have.
            max_texts: The most texts that are categories.
        """
        frequent = [(-n, text) for text, n in self.texts.items() if n >= least]
        kept = tuple(sorted(text for _, text in sorted(frequent)[:max_texts]))
        edges = _edges(np.asarray(self.numbers, dtype=np.float64), least) if len(self.numbers) >= least else None
        has_flags = self.n_flags >= least
        if not kept and not has_flags and edges is None:
            return None
        return AttributeCategories(name, kept, has_flags, edges, is_multiple=bool(self.n_lists))


def values_by_attribute(rows: Iterable[Mapping[str, GivenValue]]) -> dict[str, AttributeValues]:
    """Return the values of users or items by attribute, in the order of the names."""
    found: dict[str, AttributeValues] = {}
    for attributes in rows:
        for name, value in attributes.items():
            values = found.get(name)
            if values is None:
                values = found[name] = AttributeValues()
            values.add(value)
    return {name: found[name] for name in sorted(found)}


def _edges(numbers: np.ndarray[tuple[int], np.dtype[np.float64]], least: int) -> tuple[float, ...]:
    """Return the lowest number of each band but the first, given finite numbers, float64 (n,), n > 0."""
    distinct, counts = np.unique(numbers, return_counts=True)
    frequent = distinct[counts >= least]
    if 0 < frequent.size <= _MAX_OWN_BANDS and 2 * counts[counts >= least].sum() >= numbers.size:
        # A rare number counts as the frequent one below it, or as the least one.
        return tuple(frequent[1:].tolist())
    n_ranges = max(1, min(_MAX_RANGES, numbers.size // least))
    edges = np.unique(np.quantile(numbers, np.arange(1, n_ranges) / n_ranges, method="lower"))
    return tuple(edges[edges > distinct[0]].tolist())
