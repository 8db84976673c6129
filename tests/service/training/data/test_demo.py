import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.errors import DataError
from service.training.data import datasets, demo
from service.training.interactions import no_progress


@pytest.mark.parametrize(
    "size", [(1, 1, 1), (2, 1, 2), (10, 10, 100), (3, 500, 1500), (500, 3, 700), (40, 30, 20), (200, 100, 5000)]
)
def test_there_are_exactly_so_many_ratings_of_different_pairs(size: tuple[int, int, int]) -> None:
    """Of any density and size; with enough ratings every user and item has one."""
    data = demo.generate(demo.DemoSize(*size), no_progress)
    n_users, n_items, n_ratings = size
    assert len(data) == n_ratings
    assert len(set(zip(data.user_rows.tolist(), data.item_rows.tolist(), strict=True))) == n_ratings
    assert len(data.users) == len(set(data.user_rows.tolist())) <= n_users
    assert len(data.items) == len(set(data.item_rows.tolist())) <= n_items
    if n_ratings >= n_users + n_items:
        assert (len(data.users), len(data.items)) == (n_users, n_items)
    assert 0.5 <= data.rating_min <= data.rating_max <= 5.0


def test_the_same_size_gives_the_same_set() -> None:
    """Byte for byte, with a fingerprint that needs no generating; another size has another."""
    first, second = datasets.read("demo:50x40x600"), datasets.read("demo:50x40x600")
    assert first.timestamps is not None
    assert second.timestamps is not None
    for name in ("user_rows", "item_rows", "ratings", "timestamps"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    assert first.users.id_of == second.users.id_of
    assert datasets.fingerprint("demo:50x40x600") == first.fingerprint != datasets.fingerprint("demo:50x40x601")
    assert datasets.fingerprint("demo") == datasets.fingerprint("demo:2000x1000x100000")


@given(
    drawn=st.lists(st.integers(0, 40), min_size=1, max_size=60).map(np.array),
    taken=st.sets(st.integers(0, 40)).map(lambda taken: np.array(sorted(taken), dtype=np.int64)),
)
def test_drawn_pairs_are_distinct_and_new(drawn: NDArray[np.int64], taken: NDArray[np.int64]) -> None:
    """The generator's fast set operations equal numpy's, in the same order, which the bytes of a set depend on."""
    assert demo.distinct(drawn).tolist() == np.unique(drawn).tolist()
    assert demo.distinct_except(drawn, taken).tolist() == np.setdiff1d(drawn, taken).tolist()


@given(rows=st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_rows_are_numbered_by_first_appearance(rows: list[int]) -> None:
    """Without gaps, and with ids from 1."""
    numbered, vocabulary = demo.rows_in_use(np.array(rows), 10)
    assert vocabulary.id_of == [str(row + 1) for row in dict.fromkeys(rows)]
    assert [vocabulary.id_of[row] for row in numbered] == [str(row + 1) for row in rows]


def test_popularity_has_a_long_tail_and_users_prefer_a_genre() -> None:
    """A few items have a large share of the ratings, and users rate items of their own genre more and higher."""
    data = datasets.read("demo")
    counts = np.sort(np.bincount(data.item_rows))[::-1]
    assert counts[:100].sum() > 0.3 * counts.sum()
    assert counts[500:].sum() > 0.1 * counts.sum()
    genre_of = [str(data.catalogue.attributes[id_]["genres"]) for id_ in data.items.id_of]
    genres = np.unique(genre_of, return_inverse=True)[1][data.item_rows]
    of_user = np.zeros((len(data.users), genres.max() + 1))
    np.add.at(of_user, (data.user_rows, genres), 1)
    is_own = genres == of_user.argmax(axis=1)[data.user_rows]
    assert 0.5 < is_own.mean() < 0.9
    assert data.ratings[is_own].mean() > data.ratings[~is_own].mean() + 0.5


def test_titles_are_readable_and_all_different() -> None:
    """Every item has one."""
    data = datasets.read("demo")
    titles = [data.catalogue.titles[id_] for id_ in data.items.id_of]
    assert len(set(titles)) == len(titles) == 1000
    assert all(title.startswith("The ") and title.endswith(")") for title in titles)


@pytest.mark.parametrize(
    "spec", ["demo:", "demo:10", "demo:10x10", "demo:-1x2x3", "demo:2x2x5", "demo:1x1x0", "demo:axbxc"]
)
def test_impossible_specifications_are_refused(spec: str) -> None:
    """Malformed, empty, or with more ratings than pairs."""
    with pytest.raises(DataError, match="demo"):
        datasets.read(spec)


def test_a_dense_set_takes_few_rounds() -> None:
    """If every user rates every item, the last free pairs are listed and not drawn by chance."""
    rounds: list[int] = []
    data = datasets.read("demo:1000x1000x1000000", lambda _stage, done, _total: rounds.append(done))
    assert len(data) == 1_000_000
    assert len(rounds) < 20


@pytest.mark.parametrize(
    "spec", ["demo:10000001x1x1", "demo:999999999x999999999x9999999999", f"demo:1x1x1{5000 * '0'}"]
)
def test_too_large_a_set_is_refused(spec: str) -> None:
    """With the limits in the sentence."""
    with pytest.raises(DataError, match="more than 10,000,000 users, 10,000,000 items or 100,000,000 ratings"):
        datasets.read(spec)


def test_digits_are_plain() -> None:
    """Digits of other scripts are refused."""
    with pytest.raises(DataError, match="not of the form"):
        datasets.read("demo:\uff15x5x5")
