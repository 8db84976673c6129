"""LensKit, used as in its documentation; runs in the peers' environment."""

from dataclasses import dataclass
from typing import Any

import lenskit  # type: ignore[import-not-found]  # of the peers' environment
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from lenskit.als import BiasedMFScorer, ImplicitMFScorer  # type: ignore[import-not-found]
from lenskit.batch import predict, recommend  # type: ignore[import-not-found]
from lenskit.data import ItemListCollection, from_interactions_df  # type: ignore[import-not-found]
from lenskit.knn import ItemKNNScorer  # type: ignore[import-not-found]
from lenskit.parallel import initialize  # type: ignore[import-not-found]
from lenskit.pipeline import topn_pipeline  # type: ignore[import-not-found]
from lenskit.training import TrainingOptions  # type: ignore[import-not-found]
from numpy.typing import NDArray

from ops.benchmarks.peers.peer_program import Fold


@dataclass(eq=False)
class _LensKitLibrary:
    fold: Fold
    dataset: Any
    version: str = lenskit.__version__

    def model(self, name: str, seed: int, settings: dict[str, Any]) -> "_LensKitModel":
        if name == "ItemKNN":
            settings = {"feedback": "implicit", **settings}
        make = {"BiasedMF": BiasedMFScorer, "ImplicitMF": ImplicitMFScorer, "ItemKNN": ItemKNNScorer}[name]
        pipeline = topn_pipeline(make(**settings), n=self.fold.length, predicts_ratings=name == "BiasedMF")
        return _LensKitModel(pipeline, seed, self)


@dataclass(eq=False)
class _LensKitModel:
    pipeline: Any
    seed: int
    library: _LensKitLibrary

    def fit(self) -> None:
        self.pipeline.train(self.library.dataset, TrainingOptions(rng=self.seed))

    def predict(self) -> NDArray[np.float64]:
        fold = self.library.fold
        pairs = pd.DataFrame({"user_id": fold.test_users, "item_id": fold.test_items})
        found = predict(self.pipeline, ItemListCollection.from_df(pairs, ["user_id"]), n_jobs=1).to_df()
        keys = found["user_id"].to_numpy() * fold.n_items + found["item_id"].to_numpy()
        order = np.argsort(keys)
        places = np.searchsorted(keys[order], fold.test_users * fold.n_items + fold.test_items)
        scores: NDArray[np.float64] = found["score"].to_numpy(dtype=np.float64)[order][places]
        return scores

    def rank(self) -> NDArray[np.int64]:
        fold = self.library.fold
        rows = np.full((fold.listed_users.size, fold.length), -1, dtype=np.int64)
        lists = recommend(self.pipeline, fold.listed_users, n=fold.length, n_jobs=1)
        row_of = {user: row for row, user in enumerate(fold.listed_users.tolist())}
        for key, items in lists.items():
            ids = items.ids()
            rows[row_of[int(key.user_id)], : len(ids)] = ids
        return rows


def start(fold: Fold) -> _LensKitLibrary:
    """Return the library with a data set of all users and items, limited to the fold's threads."""
    initialize(processes=1, threads=fold.threads, backend_threads=fold.threads)
    frame = pd.DataFrame({"user_id": fold.users, "item_id": fold.items, "rating": fold.ratings})
    return _LensKitLibrary(
        fold, from_interactions_df(frame, users=np.arange(fold.n_users), items=np.arange(fold.n_items))
    )
