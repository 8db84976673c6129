"""Sets of ratings as tests write them down."""

from collections.abc import Sequence

import numpy as np

from service.models.vocabulary import Vocabulary
from service.training.interactions import Interactions, ReadReport


def rated(
    rows: Sequence[tuple[int, int, float]],
    *,
    times: Sequence[int] | None = None,
    n_users: int | None = None,
    n_items: int | None = None,
) -> Interactions:
    """Return (user row, item row, rating) triples as a set; ids are "u0", "i0" and so on."""
    users, items, ratings = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    return Interactions(
        users=Vocabulary(f"u{row}" for row in range(n_users or max(users) + 1)),
        items=Vocabulary(f"i{row}" for row in range(n_items or max(items) + 1)),
        user_rows=np.array(users, dtype=np.int32),
        item_rows=np.array(items, dtype=np.int32),
        ratings=np.array(ratings, dtype=np.float32),
        timestamps=None if times is None else np.array(times, dtype=np.int64),
        rating_min=min(ratings, default=1.0),
        rating_max=max(ratings, default=5.0),
        fingerprint="sha256:0",
        report=ReadReport(source="test"),
    )


def triples(data: Interactions) -> list[tuple[str, str, float]]:
    """Return user id, item id and rating of every row."""
    users = [data.users.id_of[row] for row in data.user_rows]
    items = [data.items.id_of[row] for row in data.item_rows]
    return list(zip(users, items, data.ratings.tolist(), strict=True))


def times(data: Interactions) -> list[int]:
    """Return the time of every row."""
    assert data.timestamps is not None
    values: list[int] = data.timestamps.tolist()
    return values
