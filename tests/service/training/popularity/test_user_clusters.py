"""Users with one taste share a cluster, and get its popular items."""

import dataclasses

import numpy as np
import pytest

from service.models.snapshot import ModelSnapshot
from service.training.algorithms.popularity import PopularityConfig
from service.training.assembly import assemble
from service.training.popularity.user_clusters import user_clusters
from tests.support.interactions import rated

N_USERS, N_ITEMS = 120, 40


@pytest.fixture
def two_tastes() -> ModelSnapshot:
    """Users of even rows like the first half of the items, the others the second half."""
    rng = np.random.default_rng(0)
    rows = [
        (user, int(item), 1.0)
        for user in range(N_USERS)
        for item in (user % 2) * N_ITEMS // 2 + rng.permutation(N_ITEMS // 2)[:8]
    ]
    return assemble(rated(rows, n_items=N_ITEMS), "popularity", PopularityConfig())


@pytest.mark.parametrize("has_factors", [True, False])
def test_users_of_one_taste_share_a_cluster(two_tastes: ModelSnapshot, *, has_factors: bool) -> None:
    """By their factors, and by their histories where the model has no factors."""
    snapshot = two_tastes
    if has_factors:
        taste = np.eye(2, dtype=np.float32)[np.arange(N_USERS) % 2]
        snapshot = dataclasses.replace(snapshot, user_factors=taste, item_factors=np.zeros((N_ITEMS, 2), np.float32))
    found = user_clusters(snapshot, np.random.default_rng(1))
    assert found is not None
    assert len(set(found.of_users[::2].tolist())) == len(set(found.of_users[1::2].tolist())) == 1
    assert found.of_users[0] != found.of_users[1]
    counts = np.bincount(snapshot.history.indices, minlength=N_ITEMS)
    for user in (0, 1):
        own = list(range(user * N_ITEMS // 2, (user + 1) * N_ITEMS // 2))
        listed = found.items[found.of_users[user]].tolist()
        assert sorted(listed[: N_ITEMS // 2]) == own
        assert listed[: N_ITEMS // 2] == sorted(own, key=lambda row: (-counts[row], row))
        assert len(set(listed)) == N_ITEMS


def test_a_few_users_are_no_clusters() -> None:
    few = assemble(rated([(user, user, 1.0) for user in range(60)]), "popularity", PopularityConfig())
    assert user_clusters(few, np.random.default_rng(1)) is None


def test_the_same_generator_gives_the_same_user_clusters(two_tastes: ModelSnapshot) -> None:
    first, again = (user_clusters(two_tastes, np.random.default_rng(3)) for _ in range(2))
    assert first is not None
    assert again is not None
    assert first.of_users.tobytes() == again.of_users.tobytes()
    assert first.items.tobytes() == again.items.tobytes()
