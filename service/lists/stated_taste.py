"""A taste that a request states: favourite categories of items, such as genres, of a user of whom little is known.

`favourite_genres` names categories of the items' attribute `genres`. Each counts as if the user had liked its most
popular items before everything else: it decides the list of an unknown user, and fades with what the user does.
So every model that computes users from interactions answers to it, on any data with categories of items. The items
that stand for a taste may be in the list. Pure.
"""

from collections.abc import Iterator, Mapping
from itertools import chain, zip_longest
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.lists.filters.columns import Column, Columns
from service.models.features.attribute_categories import GivenValue
from service.models.history.user_history import RATING, UserHistory
from service.models.snapshot import ModelSnapshot

PREFIX: Final = "favourite_"
# Items that stand for a category; a few are its style, and many are all that is popular.
_ITEMS_OF_CATEGORY: Final = 10


def is_known_taste(snapshot: ModelSnapshot, columns: Columns, name: str, value: GivenValue) -> bool:
    """Whether a feature is a taste that the lists of a model answer to."""
    return snapshot.fold_in is not None and any(rows.size for rows in _category_rows(snapshot, columns, name, value))


def known_tastes(snapshot: ModelSnapshot, columns: Columns) -> list[str]:
    """Return the names of the tastes that lists of a model answer to, ascending."""
    if snapshot.fold_in is None:
        return []
    named = ((name, columns.column(name)) for name in sorted(columns.column_names))
    return [f"{PREFIX}{name}" for name, column in named if column is not None and _has_categories(column)]


def taste_rows(snapshot: ModelSnapshot, columns: Columns, given: Mapping[str, GivenValue]) -> NDArray[np.int32]:
    """Return the items that stand for the tastes among some features, the most popular last: int32, each once.

    Categories take turns, so that each of several has its most popular items near the end.
    """
    of_categories = chain.from_iterable(_category_rows(snapshot, columns, name, value) for name, value in given.items())
    turns = zip_longest(*(rows.tolist() for rows in of_categories))
    rows = dict.fromkeys(row for turn in turns for row in turn if row is not None)
    return np.array([*rows], dtype=np.int32)[::-1]


def with_taste(snapshot: ModelSnapshot, history: UserHistory, rows: NDArray[np.int32], now_s: float) -> UserHistory:
    """Return a history that begins with the items of a taste, each rated best, but for those that it has already.

    Args:
        snapshot: The model.
        history: The interactions of the user.
        rows: Int32, the items of the taste.
        now_s: The time of the request, at which a history without interactions begins.
    """
    rows = rows[~np.isin(rows, history.rows)]
    times_s = history.times_s
    if times_s is not None:
        first_s = int(times_s.min(initial=int(now_s)))
        times_s = np.concatenate([np.full(rows.size, first_s, dtype=np.int64), times_s])
    return UserHistory(
        np.concatenate([rows, history.rows]),
        np.concatenate([np.full(rows.size, snapshot.rating_max, dtype=np.float32), history.values]),
        np.concatenate([np.full(rows.size, RATING, dtype=np.uint8), history.types]),
        times_s,
    )


def _category_rows(
    snapshot: ModelSnapshot, columns: Columns, name: str, value: GivenValue
) -> Iterator[NDArray[np.int64]]:
    """Yield the most popular items of each category that a feature names, the most popular first: int64."""
    column = columns.column(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    if column is None or isinstance(value, bool | int | float) or value is None:
        return
    ranks = snapshot.popular_ranks
    for text in [value] if isinstance(value, str) else dict.fromkeys(value):
        rows = column.rows_of(text).astype(np.int64)
        # An item without interactions says nothing of a taste.
        rows = rows[snapshot.popularity[rows] > 0]
        if rows.size > _ITEMS_OF_CATEGORY:
            # A sort of a category of a large catalogue would hold up other requests.
            rows = rows[np.argpartition(ranks[rows], _ITEMS_OF_CATEGORY - 1)[:_ITEMS_OF_CATEGORY]]
        yield rows[np.argsort(ranks[rows])]


def _has_categories(column: Column) -> bool:
    return any(isinstance(value, str) for value in column.values)
