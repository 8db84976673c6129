"""What is known of an item beside interactions: its title, its attributes, and whether it may be listed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from service.errors import ModelRefused

AttributeValue: TypeAlias = str | int | float | bool | list[str]
"""A category, a number, a flag, or several categories."""

TITLE: Final = "title"


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """One item of a catalogue.

    Attributes:
        title: The title; None without one.
        attributes: Values by name, such as {"genres": ["Comedy"], "year": 1995}.
        hidden: Whether the item is left out of every list.
        available_from_s: Unix seconds from which lists may hold the item; None for always.
        available_until_s: Unix seconds before which lists may hold the item; None for always.
    """

    title: str | None = None
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    hidden: bool = False
    available_from_s: float | None = None
    available_until_s: float | None = None

    def value(self, name: str) -> AttributeValue | None:
        """Return the title or an attribute; None without a value.

        Where there is no attribute of the name, such as `genre`, that of the name with an s counts, such as `genres`.
        """
        if name == TITLE:
            return self.title
        found = self.attributes.get(name)
        return self.attributes.get(f"{name}s") if found is None else found

    @property
    def is_limited(self) -> bool:
        """Whether there is a time at which lists may not hold the item."""
        return self.hidden or self.available_from_s is not None or self.available_until_s is not None


NO_RECORD: Final = ItemRecord()


def from_json(value: Any) -> ItemRecord:
    """Return the record of a published JSON value: `{"title": …, "attributes": {…}}`, both optional.

    Raises:
        ModelRefused: The value is not of this form.
    """
    if not isinstance(value, dict):
        raise ModelRefused("A record of the item catalogue is not a JSON object.")
    title, attributes = value.get("title"), value.get("attributes", {})
    if not (title is None or isinstance(title, str)) or not isinstance(attributes, dict):
        raise ModelRefused("A record of the item catalogue has a title or attributes of the wrong type.")
    for name, given in attributes.items():
        if not (isinstance(given, str | int | float) or _is_list_of_texts(given)):
            raise ModelRefused(f"A record of the item catalogue has the attribute {name!r} of the wrong type.")
    return ItemRecord(title, attributes)


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
