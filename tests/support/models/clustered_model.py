"""A model whose items are in clusters, as those of real catalogues are: large enough for an index, and quickly made."""

import numpy as np
from scipy.sparse import csr_array

from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary

N_USERS = 60


def clustered_model(n_items: int = 4_000, k: int = 12, seed: int = 0, spread: float = 0.5) -> ModelSnapshot:
    """Return a model of 60 users, of whom the last one has no factors, each with 40 of the items that fit best."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_items // 40, k))
    items = centres[rng.integers(0, len(centres), n_items)] + spread * rng.normal(size=(n_items, k))
    items *= np.exp(0.2 * rng.normal(size=(n_items, 1)))
    users = centres[rng.integers(0, len(centres), N_USERS)] + spread * rng.normal(size=(N_USERS, k))
    users[-1] = 0
    best = np.argsort(-(users @ items.T), axis=1)[:, :80:2]
    seen = np.sort(best, axis=1)
    history = csr_array(
        (np.ones(seen.size, dtype=np.float32), seen.ravel().astype(np.int32), np.arange(0, seen.size + 1, 40)),
        shape=(N_USERS, n_items),
    )
    return ModelSnapshot(
        algorithm="svd",
        settings={"n_factors": k},
        users=Vocabulary(f"u{row}" for row in range(N_USERS)),
        items=Vocabulary(f"i{row}" for row in range(n_items)),
        user_factors=users.astype(np.float32),
        item_factors=items.astype(np.float32),
        user_bias=rng.normal(size=N_USERS).astype(np.float32),
        item_bias=rng.normal(size=n_items).astype(np.float32),
        global_mean=3.5,
        rating_min=1.0,
        rating_max=5.0,
        history=history,
        popularity=rng.integers(0, 5, n_items).astype(np.float32),
        data_as_of="2026-01-01T00:00:00.000Z",
    )
