"""scikit-surprise, used as in its documentation; runs in the peers' environment."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import surprise  # type: ignore[import-not-found]  # of the peers' environment
from numpy.typing import NDArray

from ops.benchmarks.peers.peer_program import Fold

# The others are deterministic.
_SEEDED = {"SVD", "SVDpp", "NMF"}
# The others print nothing.
_VERBOSE = {"KNNBasic", "KNNWithMeans", "KNNBaseline", "BaselineOnly"}


@dataclass(eq=False)
class _SurpriseLibrary:
    trainset: Any
    pairs: list[tuple[int, int, float]]
    version: str = surprise.__version__

    def model(self, name: str, seed: int, settings: dict[str, Any]) -> "_SurpriseModel":
        if name in _SEEDED:
            settings = {"random_state": seed, **settings}
        if name in _VERBOSE:
            settings = {"verbose": False, **settings}
        return _SurpriseModel(getattr(surprise, name)(**settings), self)


@dataclass(eq=False)
class _SurpriseModel:
    algorithm: Any
    library: _SurpriseLibrary

    def fit(self) -> None:
        self.algorithm.fit(self.library.trainset)

    def predict(self) -> NDArray[np.float64]:
        return np.array([prediction.est for prediction in self.algorithm.test(self.library.pairs)])


def start(fold: Fold) -> _SurpriseLibrary:
    """Return the library with a training set, in the order of the ratings, and its list of pairs."""
    frame = pd.DataFrame({"user": fold.users, "item": fold.items, "rating": fold.ratings})
    reader = surprise.Reader(rating_scale=(fold.rating_min, fold.rating_max))
    trainset = surprise.Dataset.load_from_df(frame, reader).build_full_trainset()
    users, items = fold.test_users.tolist(), fold.test_items.tolist()
    # The third value is the true rating, which does not affect predictions.
    return _SurpriseLibrary(trainset, [(user, item, 0.0) for user, item in zip(users, items, strict=True)])
