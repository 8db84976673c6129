"""The demo set: generated ratings with structure that models can learn.

Invariant: the same size gives the same set, with exactly that many ratings. The popularity of items follows a power
law; every user and item belongs to one of `_GENRES`, and users rate items of their own genre more often and higher.
With at least USERS + ITEMS ratings every user and every item has one.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.errors import DataError
from service.models.vocabulary import Vocabulary
from service.training.interactions import Interactions, ItemCatalogue, Progress, ReadReport

SPEC_FORM: Final = "demo[:USERSxITEMSxRATINGS]"
_GENERATOR_VERSION: Final = 2
_SEED: Final = 20_260_101
_SPEC = re.compile(r"demo(?::([0-9]+)x([0-9]+)x([0-9]+))?")
# Users, items and ratings that fit into one machine: generating takes about 100 bytes per rating.
_LIMITS: Final = (10_000_000, 10_000_000, 100_000_000)
_GENRES: Final = ("Adventure", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Mystery", "Science Fiction")
# fmt: off
_ADJECTIVES: Final = (
    "Amber", "Borrowed", "Broken", "Careless", "Clever", "Distant", "Electric", "Endless", "Faithful", "Forgotten",
    "Gentle", "Golden", "Hidden", "Honest", "Hollow", "Last", "Little", "Lonely", "Midnight", "Paper", "Patient",
    "Quiet", "Restless", "Scarlet", "Second", "Silent", "Stolen", "Summer", "Velvet", "Wandering",
)
_NOUNS: Final = (
    "Archive", "Bridge", "Cartographer", "Clockmaker", "Compass", "Garden", "Harbour", "Island", "Journey", "Lantern",
    "Letter", "Lighthouse", "Machine", "Meridian", "Mirror", "Mountain", "Neighbour", "Orchard", "Passenger",
    "Promise", "River", "Season", "Secret", "Shadow", "Station", "Stranger", "Teacher", "Theatre", "Tide", "Visitor",
    "Voyage", "Winter", "Witness", "Workshop", "Year",
)
# fmt: on
_START_S: Final = 1_640_995_200  # 2022-01-01
_SPAN_S: Final = 4 * 365 * 86400
_OWN_TASTE_SHARE: Final = 0.6
_DRAWS_AT_ONCE: Final = 1 << 23


@dataclass(frozen=True)
class DemoSize:
    """The size of a demo set: at least 1 of each, and no more ratings than pairs."""

    n_users: int = 2000
    n_items: int = 1000
    n_ratings: int = 100_000

    def __str__(self) -> str:
        return f"demo:{self.n_users}x{self.n_items}x{self.n_ratings}"


def parse_spec(spec: str) -> DemoSize | None:
    """Return the size of a specification; None if the text is a path.

    Raises:
        DataError: It begins with "demo:" and is no specification, or its size is impossible or too large.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        if spec.startswith("demo:"):
            raise DataError(f"{spec!r} is not of the form {SPEC_FORM}.")
        return None
    if match[1] is None:
        return DemoSize()
    if any(len(group) > 9 or int(group) > most for group, most in zip(match.groups(), _LIMITS, strict=True)):
        users, items, ratings = (f"{most:,}" for most in _LIMITS)
        raise DataError(f"{spec!r} asks for more than {users} users, {items} items or {ratings} ratings.")
    size = DemoSize(*(int(group) for group in match.groups()))
    if not min(size.n_users, size.n_items, size.n_ratings):
        raise DataError(f"{spec!r} asks for a set without users, items or ratings.")
    if size.n_ratings > size.n_users * size.n_items:
        raise DataError(
            f"{spec!r} asks for more ratings than the {size.n_users * size.n_items} pairs of user and item."
        )
    return size


def fingerprint(size: DemoSize) -> str:
    """Return "sha256:…" over the size and the generator's version."""
    return f"sha256:{hashlib.sha256(f'{size} generator {_GENERATOR_VERSION}'.encode()).hexdigest()}"


def generate(size: DemoSize, progress: Progress) -> Interactions:
    """Generate a set, with rows by user, then by time; report the ratings drawn as progress."""
    rng = np.random.default_rng(_SEED)
    user_genre = rng.integers(len(_GENRES), size=size.n_users)
    item_genre = rng.integers(len(_GENRES), size=size.n_items)
    pairs = _draw_pairs(size, user_genre, item_genre, rng, progress)
    user_rows, item_rows = np.divmod(pairs, size.n_items)

    # Users arrive over the years and rate within months of arriving.
    arrival = rng.random(size.n_users)[user_rows]
    moment = np.clip(arrival + 0.05 * rng.standard_normal(pairs.size), 0, 1)
    timestamps = _START_S + (moment * _SPAN_S).astype(np.int64)

    affinity = rng.normal(-0.7, 0.4, (len(_GENRES), len(_GENRES)))
    np.fill_diagonal(affinity, 1.0)
    user_bias, item_bias = rng.normal(0, 0.3, size.n_users), rng.normal(0, 0.3, size.n_items)
    stars = 3.3 + user_bias[user_rows] + item_bias[item_rows] + affinity[user_genre[user_rows], item_genre[item_rows]]
    stars += rng.normal(0, 0.5, pairs.size)
    ratings = np.clip(np.round(stars * 2) / 2, 0.5, 5.0).astype(np.float32)

    # One key sorts several times faster than two; the sort is stable.
    order = np.argsort(user_rows * (_SPAN_S + 1) + (timestamps - _START_S), kind="stable")
    user_rows, users = rows_in_use(user_rows[order], size.n_users)
    item_rows, items = rows_in_use(item_rows[order], size.n_items)
    return Interactions(
        users=users,
        items=items,
        user_rows=user_rows,
        item_rows=item_rows,
        ratings=ratings[order],
        timestamps=timestamps[order],
        rating_min=float(ratings.min()),
        rating_max=float(ratings.max()),
        fingerprint=fingerprint(size),
        report=ReadReport(source=str(size), n_rows=size.n_ratings),
        catalogue=ItemCatalogue(
            titles={id_: _title(int(id_) - 1) for id_ in items.id_of},
            attributes={
                id_: {"genres": [_GENRES[item_genre[int(id_) - 1]]], "year": _year(int(id_) - 1)} for id_ in items.id_of
            },
        ),
    )


def _draw_pairs(
    size: DemoSize,
    user_genre: NDArray[np.int64],
    item_genre: NDArray[np.int64],
    rng: np.random.Generator,
    progress: Progress,
) -> NDArray[np.int64]:
    """Draw distinct pairs, as user row * n_items + item row, ascending."""
    # Active users and popular items: power laws over a random order.
    activity = np.cumsum((1.0 + rng.permutation(size.n_users)) ** -0.5)
    by_genre = np.argsort(item_genre, kind="stable")
    popularity = np.concatenate([[0.0], np.cumsum((1.0 + rng.permutation(size.n_items)[by_genre]) ** -0.8)])
    bounds = popularity[np.searchsorted(item_genre[by_genre], np.arange(len(_GENRES) + 1))]

    def draw_items(users: NDArray[np.int64], own_share: float) -> NDArray[np.int64]:
        genre = user_genre[users]
        # A genre without items, possible in a tiny set, leaves its users to the whole catalogue.
        is_own = (rng.random(users.size) < own_share) & (bounds[genre + 1] > bounds[genre])
        low, high = np.where(is_own, bounds[genre], 0.0), np.where(is_own, bounds[genre + 1], popularity[-1])
        place = np.searchsorted(popularity, low + rng.random(users.size) * (high - low), side="right") - 1
        items: NDArray[np.int64] = by_genre[np.minimum(place, size.n_items - 1)]
        return items

    pairs = np.empty(0, dtype=np.int64)
    if size.n_ratings >= size.n_users + size.n_items:
        all_users, all_items = np.arange(size.n_users), np.arange(size.n_items)
        own = all_users * size.n_items + draw_items(all_users, _OWN_TASTE_SHARE)
        of_everything = rng.integers(size.n_users, size=size.n_items) * size.n_items + all_items
        pairs = distinct(np.concatenate([own, of_everything]))
    n_pairs, n_rounds = size.n_users * size.n_items, 0
    while pairs.size < size.n_ratings:
        missing, n_free = size.n_ratings - pairs.size, n_pairs - pairs.size
        n_draws = min(int(1.2 * missing / (n_free / n_pairs)) + 64, _DRAWS_AT_ONCE)
        if 1.2 * missing > n_free:
            # So few pairs of a dense set are free that listing them is cheaper than drawing them.
            is_free = np.ones(n_pairs, dtype=bool)
            is_free[pairs] = False
            new = np.flatnonzero(is_free)
        elif n_rounds < 8:
            users = np.searchsorted(activity, rng.random(n_draws) * activity[-1], side="right")
            users = np.minimum(users, size.n_users - 1)
            new = distinct_except(users * size.n_items + draw_items(users, _OWN_TASTE_SHARE), pairs)
        else:
            # Uniform draws find the remaining free pairs sooner.
            new = distinct_except(rng.integers(n_pairs, size=n_draws), pairs)
        if new.size > missing:
            new = rng.choice(new, missing, replace=False)
        pairs = np.sort(np.concatenate([pairs, new]))
        n_rounds += 1
        progress("generate", pairs.size, size.n_ratings)
    return pairs


def distinct(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distinct pairs, ascending; np.unique hashes them, which is slower for millions."""
    in_order = np.sort(pairs)
    unique: NDArray[np.int64] = in_order[np.append(True, in_order[1:] != in_order[:-1])]
    return unique


def distinct_except(drawn: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distinct ones of `drawn`, at least one, that are not in the ascending `pairs`, ascending."""
    new = distinct(drawn)
    if not pairs.size:
        return new
    place = np.minimum(np.searchsorted(pairs, new), pairs.size - 1)
    new_pairs: NDArray[np.int64] = new[pairs[place] != new]
    return new_pairs


def rows_in_use(rows: NDArray[np.int64], n: int) -> tuple[NDArray[np.int32], Vocabulary]:
    """Renumber the rows in use by first appearance; an id is the old row counted from 1."""
    first = np.full(n, rows.size)
    # Of several values for one place numpy keeps the last, so the first appearance is assigned last.
    first[rows[::-1]] = np.arange(rows.size - 1, -1, -1)
    used = np.flatnonzero(first < rows.size)
    by_appearance = used[np.argsort(first[used], kind="stable")]
    row_of = np.zeros(n, dtype=np.int32)
    row_of[by_appearance] = np.arange(used.size, dtype=np.int32)
    return row_of[rows], Vocabulary([str(row + 1) for row in by_appearance.tolist()])


def _title(number: int) -> str:
    # Steps coprime to the lists' lengths reach every pair once before any repeats.
    adjective = _ADJECTIVES[number % len(_ADJECTIVES)]
    noun = _NOUNS[(number // len(_ADJECTIVES) + 7 * number) % len(_NOUNS)]
    sequel = number // (len(_ADJECTIVES) * len(_NOUNS))
    return f"The {adjective} {noun}{f' {sequel + 1}' if sequel else ''} ({_year(number)})"


def _year(number: int) -> int:
    return 1950 + number * 37 % 75
