"""The benchmarks of large catalogues, on small ones."""

from pathlib import Path

import pytest

from ops.benchmarks.catalogues import generation_cost, index_cost, search_cost


def test_the_index_is_measured_against_exact_lists() -> None:
    """Every kind of list has its times and its recall."""
    pytest.importorskip("faiss", reason="The extra `ann` is not installed.")
    found = index_cost.measure(4_000, 16, 5)
    assert found.description["kind"] == "ivf_flat"
    assert found.median_ms.keys() == found.p99_ms.keys() == found.recall.keys()
    assert min(found.recall.values()) > 0.8


def test_every_kind_of_search_is_measured() -> None:
    """With the size of the index."""
    found = search_cost.measure(2_000, 3)
    assert found.index_bytes > 50_000
    assert len(found.median_ms) == 8
    assert min(found.median_ms.values()) > 0


def test_taste_is_measured_by_items_that_users_come_to(tmp_path: Path) -> None:
    """Without taste all orders are the same; two groups of users have films of two kinds with the same words."""
    folder = tmp_path / "ml-latest-small"
    folder.mkdir()
    ratings, movies = ["userId,movieId,rating,timestamp"], ["movieId,title,genres"]
    movies += [f"{item},Night of number {item} (1999),{'War' if item % 2 else 'Drama'}" for item in range(40)]
    for user in range(60):
        own = [item for item in range(40) if item % 2 == user % 2]
        ratings += [f"{user},{own[(user + step) % 20]},5,{step}" for step in range(12)]
    (folder / "ratings.csv").write_text("\n".join(ratings) + "\n")
    (folder / "movies.csv").write_text("\n".join(movies) + "\n")
    rows = search_cost.taste(str(folder), "pure_svd:n_factors=4", 40, 0, lambda _text: None)
    by = {(row.by, row.weight): row.judging for row in rows}
    assert by["taste", 0.0] == by["popularity", 0.0]
    assert by["taste", 1.0] > by["popularity", 1.0]


def test_lists_in_bulk_are_measured_against_the_bare_product() -> None:
    """Every method takes the same users."""
    found = generation_cost.measure(600, 1_500, 8, 10, 2, generation_cost.WorkerRuns((), 600, 1))
    assert len(found.us_per_user) == 5
    assert min(found.us_per_user.values()) > 0
    assert not found.workers
    assert found.ratio > 0
    assert 10 * 8 < found.bytes_per_user < 10 * 40
