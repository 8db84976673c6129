"""The pairs of our models and peers, models of public libraries, and the bounds on their differences.

A peer has the defaults of its library, which for scikit-surprise are the settings of the published tables and of our
models. One that ranks has our size and number of epochs (`SHARED`); its other settings are defaults unless
`--peer-set` changes them, so that it shows what its users get.
"""

import json
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple

from service.declared_settings import enumerated
from service.errors import UsageError

Task = Literal["predict", "rank"]

LENGTH: Final = 20
MEASURES: Final[dict[Task, tuple[str, str]]] = {
    "predict": ("rmse", "mae"),
    "rank": (f"recall@{LENGTH}", f"ndcg@{LENGTH}"),
}
LIBRARIES: Final = ("surprise", "implicit", "lenskit")


class Pair(NamedTuple):
    """One of our algorithms, the peer it is compared with, and the task of both, which decides the measures."""

    algorithm: str
    library: str
    model: str
    task: Task


PAIRS: Final = (
    Pair("svd", "surprise", "SVD", "predict"),
    Pair("svdpp", "surprise", "SVDpp", "predict"),
    Pair("nmf", "surprise", "NMF", "predict"),
    Pair("slope_one", "surprise", "SlopeOne", "predict"),
    Pair("knn_basic", "surprise", "KNNBasic", "predict"),
    Pair("knn_means", "surprise", "KNNWithMeans", "predict"),
    Pair("knn_baseline", "surprise", "KNNBaseline", "predict"),
    Pair("baseline", "surprise", "BaselineOnly", "predict"),
    Pair("svd", "lenskit", "BiasedMF", "predict"),
    Pair("svd", "lenskit", "BiasedMF", "rank"),
    Pair("ials", "implicit", "ALS", "rank"),
    Pair("ials", "lenskit", "ImplicitMF", "rank"),
    Pair("softmax", "implicit", "BPR", "rank"),
    Pair("item_knn", "implicit", "Cosine", "rank"),
    Pair("item_knn", "lenskit", "ItemKNN", "rank"),
)
# Settings of our models that rank, under which they learn what their peers learn: all interactions count alike.
_ALIKE: Final = ("half_life=0", "dislike_below=0")
OURS: Final[dict[str, tuple[str, ...]]] = dict.fromkeys(("ials", "softmax", "item_knn"), _ALIKE)
# By peer and task: the peer's settings that take the value of one of ours.
SHARED: Final[dict[tuple[str, Task], dict[str, str]]] = {
    ("ALS", "rank"): {"factors": "n_factors", "iterations": "n_epochs"},
    ("BPR", "rank"): {"factors": "n_factors"},
    ("Cosine", "rank"): {"K": "n_neighbours"},
    ("BiasedMF", "rank"): {"embedding_size": "n_factors"},
    ("ImplicitMF", "rank"): {"embedding_size": "n_factors", "epochs": "n_epochs"},
}
# Seven minutes a fold on a million ratings, four times as long as any other.
SLOW: Final = "SVDpp"

# The most by which an error may exceed that of scikit-surprise on the same folds.
MARGINS: Final = {"rmse": 0.001, "mae": 0.002}
# The most seconds of five folds of MovieLens 1M, fitting and predicting, on two cores.
MAX_S: Final = {
    "svd": 15.0,
    "svdpp": 15.0,
    "nmf": 30.0,
    "slope_one": 20.0,
    "knn_basic": 40.0,
    "knn_means": 40.0,
    "knn_baseline": 40.0,
}
MOVIELENS_1M: Final = (6040, 3706, 1_000_209)
MOVIELENS_100K: Final = (943, 1682, 100_000)
# RMSE and MAE on MovieLens 100K, five random folds, from the documentation of scikit-surprise.
PUBLISHED_100K: Final = {
    "svd": (0.934, 0.737),
    "svdpp": (0.920, 0.722),
    "nmf": (0.963, 0.758),
    "slope_one": (0.946, 0.743),
    "knn_basic": (0.980, 0.774),
    "knn_means": (0.951, 0.749),
    "knn_baseline": (0.931, 0.733),
    "baseline": (0.944, 0.748),
}


def libraries(names: str) -> list[str]:
    """Parse a comma-separated list of libraries, or "none".

    Raises:
        UsageError: There is no such library.
    """
    wanted = [] if names.strip() == "none" else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in LIBRARIES:
            raise UsageError(f"There is no peer {name!r}; the peers are {enumerated(list(LIBRARIES))}, or none.")
    return wanted


def peer_settings(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Parse settings of peers, such as "ALS.alpha=10", by model; a value that is not JSON is a text.

    Raises:
        UsageError: A text is not of this form, or there is no such model.
    """
    parsed: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        model, dot, setting = (part.strip() for part in name.partition("."))
        if not equals or not dot or model not in {pair.model for pair in PAIRS}:
            raise UsageError(f"A setting of a peer has the form ALS.alpha=10, not {text!r}.")
        try:
            parsed.setdefault(model, {})[setting] = json.loads(value)
        except ValueError:
            parsed.setdefault(model, {})[setting] = value.strip()
    return parsed


def algorithms() -> list[str]:
    """Return our algorithms that have a peer, in the order of the table."""
    return list(dict.fromkeys(pair.algorithm for pair in PAIRS))
