"""implicit, used as in its documentation; runs in the peers' environment."""

from dataclasses import dataclass
from typing import Any

import implicit  # type: ignore[import-not-found]  # of the peers' environment
import numpy as np
from implicit.nearest_neighbours import CosineRecommender  # type: ignore[import-not-found]
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ops.benchmarks.peers.peer_program import Fold


@dataclass(eq=False)
class _ImplicitLibrary:
    fold: Fold
    seen: Any
    version: str = implicit.__version__

    def model(self, name: str, seed: int, settings: dict[str, Any]) -> "_ImplicitModel":
        settings = {"num_threads": self.fold.threads, **settings}
        if name == "Cosine":
            return _ImplicitModel(CosineRecommender(**settings), self)
        make = {"ALS": implicit.als.AlternatingLeastSquares, "BPR": implicit.bpr.BayesianPersonalizedRanking}[name]
        return _ImplicitModel(make(use_gpu=False, random_state=seed, **settings), self)


@dataclass(eq=False)
class _ImplicitModel:
    recommender: Any
    library: _ImplicitLibrary

    def fit(self) -> None:
        self.recommender.fit(self.library.seen, show_progress=False)

    def rank(self) -> NDArray[np.int64]:
        users, n = self.library.fold.listed_users, self.library.fold.length
        rows, _ = self.recommender.recommend(users, self.library.seen[users], N=n)
        return np.asarray(rows, dtype=np.int64)


def start(fold: Fold) -> _ImplicitLibrary:
    """Return the library with a matrix that has 1 for each rating."""
    ones = np.ones(fold.users.size, dtype=np.float32)
    return _ImplicitLibrary(fold, csr_matrix((ones, (fold.users, fold.items)), shape=(fold.n_users, fold.n_items)))
