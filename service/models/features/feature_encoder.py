"""The feature encoder: attributes of users and items as categories, for networks.

It is fitted once, on the training data, and published with the model. Training and serving call the same two functions,
`user` and `items`, so that a feature cannot differ between them.

A user is one category a column: an attribute with one value is one column, an attribute with several (such as
interests) is a column of no and yes for each of its texts. An item is a set of categories over all attributes; one
without any known category has the category 0 alone. Attributes are in the order of their names.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused
from service.models.features.attribute_categories import AttributeCategories, GivenValue
from service.models.features.attribute_values import MAX_TEXTS, values_by_attribute
from service.models.features.item_features import ItemFeatures

UNKNOWN: Final = 0
# In a column for one text of an attribute with several.
NO: Final = 1
YES: Final = 2

_FORMAT: Final = 1
# Fewer users than this say little, and the category would tell who they are.
_MIN_USERS: Final = 5
# A category of a single item says nothing of others.
_MIN_ITEMS: Final = 2
# A column each.
_MAX_TEXTS_OF_USERS: Final = 64

Attributes = Mapping[str, GivenValue]


@dataclass(frozen=True)
class FeatureEncoder:
    """The categories of the attributes of users and items.

    Attributes:
        users: Those of users, in the order of the names.
        items: Those of items, in the order of the names.
    """

    users: tuple[AttributeCategories, ...] = ()
    items: tuple[AttributeCategories, ...] = ()

    def __post_init__(self) -> None:
        """Check the order of the attributes.

        Raises:
            ModelRefused: The names do not ascend.
        """
        for side in (self.users, self.items):
            names = [each.name for each in side]
            if names != sorted(set(names)):
                raise ModelRefused("The attributes of a feature encoder are not in the order of their names.")

    @classmethod
    def fit(
        cls,
        users: Iterable[Attributes],
        items: Iterable[Attributes],
        *,
        min_users: int = _MIN_USERS,
        min_items: int = _MIN_ITEMS,
    ) -> "FeatureEncoder":
        """Choose the categories from the attributes of users and items; their order does not matter.

        Args:
            users: The attributes of each user of the training data.
            items: The attributes of each item of the training data.
            min_users: How many users a category needs.
            min_items: How many items a category needs.
        """
        of_users = (
            values.categories(name, min_users, _MAX_TEXTS_OF_USERS if values.n_lists else MAX_TEXTS)
            for name, values in values_by_attribute(users).items()
        )
        of_items = (values.categories(name, min_items) for name, values in values_by_attribute(items).items())
        return cls(
            tuple(each for each in of_users if each is not None), tuple(each for each in of_items if each is not None)
        )

    @cached_property
    def user_sizes(self) -> tuple[int, ...]:
        """The number of categories of each column of users, with the unknown one: an embedding table's rows."""
        sizes: list[int] = []
        for each in self.users:
            sizes += [YES + 1] * each.size if each.is_multiple else [each.size + 1]
        return tuple(sizes)

    @cached_property
    def n_item_categories(self) -> int:
        """The number of categories of items, with the unknown one: an embedding table's rows."""
        return 1 + sum(each.size for each in self.items)

    def user(self, given: Attributes, known: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
        """Return the categories of a user: int32 (c,), a new array, of the columns of `user_sizes`.

        Args:
            given: The attributes; of an attribute that the encoder does not know nothing is kept.
            known: Int32 (c,), the categories of the attributes that are not given; None for unknown ones.
        """
        row = np.zeros(len(self.user_sizes), dtype=np.int32) if known is None else known.astype(np.int32)
        for name, value in given.items():
            place = self._user_places.get(name)
            if place is None:
                continue
            start, attribute = place
            categories = attribute.categories_of(value)
            if not attribute.is_multiple:
                row[start] = categories[0] if len(categories) == 1 else UNKNOWN
                continue
            row[start : start + attribute.size] = UNKNOWN if value is None else NO
            for category in categories:
                row[start + category - 1] = YES
        return row

    def user_table(self, users: Sequence[Attributes]) -> NDArray[np.int32]:
        """Return the categories of many users: int32 (n, c), a row as `user` returns it."""
        table = np.zeros((len(users), len(self.user_sizes)), dtype=np.int32)
        for row, given in enumerate(users):
            if given:
                table[row] = self.user(given)
        return table

    def check_users(self, table: NDArray[np.int32]) -> None:
        """Check a table of the categories of users.

        Args:
            table: Int32 (n, c), as `user_table` returns it.

        Raises:
            ModelRefused: It has other columns, or categories that do not exist.
        """
        sizes = np.array(self.user_sizes, dtype=np.int32)
        if table.shape[1:] != sizes.shape:
            raise ModelRefused(f"Users have {table.shape[1]} columns of categories, and the encoder {sizes.size}.")
        if table.size and not (table.min() >= 0 and bool((table.max(axis=0) < sizes).all())):
            raise ModelRefused("A user has a category that the encoder does not have.")

    def item_features(self, items: Sequence[Attributes]) -> ItemFeatures:
        """Return the categories of items; an item without a known one has the category 0."""
        ids: list[int] = []
        indptr = np.zeros(len(items) + 1, dtype=np.int64)
        for row, given in enumerate(items):
            before = len(ids)
            for first, attribute in self._item_places:
                value = given.get(attribute.name)
                if value is not None:
                    ids.extend(first + category for category in attribute.categories_of(value))
            if len(ids) == before:
                ids.append(UNKNOWN)
            indptr[row + 1] = len(ids)
        return ItemFeatures(indptr, np.asarray(ids, dtype=np.int32))

    def unused(self, given: Attributes) -> list[str]:
        """Return the names of attributes of a user that say nothing to the model: unknown ones, or unknown values."""
        return [
            name
            for name, value in given.items()
            if (place := self._user_places.get(name)) is None
            or (value is not None and not place[1].categories_of(value))
        ]

    @property
    def user_names(self) -> tuple[str, ...]:
        """The attributes of users that the encoder knows."""
        return tuple(each.name for each in self.users)

    @cached_property
    def _user_places(self) -> dict[str, tuple[int, AttributeCategories]]:
        """By attribute: its first column and its categories."""
        places: dict[str, tuple[int, AttributeCategories]] = {}
        start = 0
        for each in self.users:
            places[each.name] = (start, each)
            start += each.size if each.is_multiple else 1
        return places

    @cached_property
    def _item_places(self) -> list[tuple[int, AttributeCategories]]:
        """For each attribute: what is added to its categories, and these."""
        places: list[tuple[int, AttributeCategories]] = []
        first = 0
        for each in self.items:
            places.append((first, each))
            first += each.size
        return places

    @cached_property
    def fingerprint(self) -> str:
        """A digest of all categories: encoders of equal fingerprints encode alike."""
        return f"sha256:{hashlib.sha256(self.to_bytes()).hexdigest()}"

    def to_bytes(self) -> bytes:
        """Return the content of a model's `features.json`."""
        return json.dumps(self.to_json(), ensure_ascii=False, indent=1, sort_keys=True).encode()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format": _FORMAT,
            "users": [each.to_json() for each in self.users],
            "items": [each.to_json() for each in self.items],
        }

    @classmethod
    def from_bytes(cls, content: bytes) -> "FeatureEncoder":
        """Read the content of a model's `features.json`.

        Raises:
            ModelRefused: It is not JSON, or not of this format.
        """
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ModelRefused(f"The feature encoder is not JSON: {error}.") from None
        return cls.from_json(value)

    @classmethod
    def from_json(cls, value: Any) -> "FeatureEncoder":
        """Build an encoder from `to_json()`.

        Raises:
            ModelRefused: It is not of this format.
        """
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            raise ModelRefused(f"The feature encoder is not of format {_FORMAT}.")
        users, items = value.get("users"), value.get("items")
        if not isinstance(users, list) or not isinstance(items, list):
            raise ModelRefused("The feature encoder has no list of the attributes of users or of items.")
        return cls(tuple(map(AttributeCategories.from_json, users)), tuple(map(AttributeCategories.from_json, items)))
