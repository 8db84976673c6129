"""Categories of attributes, one value at a time: the slow equivalent of `service.models.features`."""

from collections.abc import Sequence

from service.models.features.attribute_categories import AttributeCategories, GivenValue
from service.models.features.feature_encoder import NO, UNKNOWN, YES, Attributes, FeatureEncoder


def labels(attribute: AttributeCategories) -> list[tuple[str, object]]:
    """Return what each category of an attribute stands for, in order."""
    found: list[tuple[str, object]] = [("text", text) for text in attribute.texts]
    if attribute.has_flags:
        found += [("flag", False), ("flag", True)]
    if attribute.edges is not None:
        lows = (float("-inf"), *attribute.edges)
        found += [("band", (low, high)) for low, high in zip(lows, (*attribute.edges, float("inf")), strict=True)]
    return found


def categories(attribute: AttributeCategories, value: GivenValue) -> set[int]:
    """Return the categories of a value that is of a kind which the attribute has."""
    values = value if isinstance(value, list) else [value]
    found = set()
    for category, (kind, label) in enumerate(labels(attribute), start=1):
        for each in values:
            is_number = isinstance(each, int | float) and not isinstance(each, bool)
            if (kind == "text" and isinstance(each, str) and each == label) or (
                kind == "flag" and isinstance(each, bool) and each == label
            ):
                found.add(category)
            if kind == "band" and is_number and isinstance(label, tuple) and label[0] <= float(each or 0) < label[1]:
                found.add(category)
    return found


def user(encoder: FeatureEncoder, given: Attributes) -> list[int]:
    """Return the categories of a user, column by column."""
    row: list[int] = []
    for attribute in encoder.users:
        value = given.get(attribute.name)
        found = categories(attribute, value)
        if attribute.is_multiple:
            row += [
                UNKNOWN if value is None else YES if category in found else NO
                for category in range(1, attribute.size + 1)
            ]
        else:
            row.append(found.pop() if len(found) == 1 else UNKNOWN)
    return row


def items(encoder: FeatureEncoder, given: Sequence[Attributes]) -> list[list[int]]:
    """Return the categories of each item, ascending."""
    rows = []
    for attributes in given:
        row, first = [], 0
        for attribute in encoder.items:
            row += [first + category for category in sorted(categories(attribute, attributes.get(attribute.name)))]
            first += attribute.size
        rows.append(row or [UNKNOWN])
    return rows
