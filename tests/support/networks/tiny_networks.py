"""Networks that are small enough to be checked by hand, and a model that has them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused
from service.models.features.feature_encoder import Attributes, FeatureEncoder
from service.models.features.item_features import ItemFeatures
from service.models.fold_in.fold_in import fold_in
from service.models.fold_in.settings import NETWORK, FoldIn
from service.models.history.weights import HistoryWeights
from service.models.networks import kinds
from service.models.networks.inputs import InputTables, TowerOutput, UserInput
from service.models.networks.network import Tensors
from service.models.networks.networks import Networks
from service.models.snapshot import ModelSnapshot

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MeanTower:
    """The mean of the items' inputs times a weight, plus the user's own vector and a column of each attribute."""

    weight: Float32
    columns: Float32
    kind: ClassVar[str] = "test_mean"
    is_slow: ClassVar[bool] = False

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"weight": self.weight, "columns": self.columns}

    def settings(self) -> dict[str, Any]:
        return {}

    @classmethod
    def of(cls, tensors: Tensors, settings: Mapping[str, Any]) -> "MeanTower":
        if tensors.keys() != {"weight", "columns"} or settings:
            raise ModelRefused("The mean tower has other weights.")
        return cls(tensors["weight"], tensors["columns"])

    def user(self, given: UserInput, tables: InputTables) -> TowerOutput:
        factors = np.zeros(self.weight.shape[1], dtype=np.float32)
        if given.history.rows.size:
            factors += tables.input_factors[given.history.rows].mean(axis=0) @ self.weight
        if given.own is not None:
            factors += given.own
        for category in given.attributes.tolist():
            factors += self.columns[category]
        return TowerOutput(factors, float(given.history.rows.size) / 8)


@dataclass(frozen=True, eq=False)
class CategoryTower:
    """The sum of a vector for each category."""

    vectors: Float32
    kind: ClassVar[str] = "test_categories"

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"vectors": self.vectors}

    def settings(self) -> dict[str, Any]:
        return {}

    @classmethod
    def of(cls, tensors: Tensors, settings: Mapping[str, Any]) -> "CategoryTower":
        del settings
        return cls(tensors["vectors"])

    def items(self, features: ItemFeatures) -> tuple[Float32, Float32]:
        found = np.zeros((features.indptr.size - 1, self.vectors.shape[1]), dtype=np.float32)
        for item, (start, stop) in enumerate(zip(features.indptr[:-1], features.indptr[1:], strict=True)):
            found[item] = self.vectors[features.ids[start:stop]].sum(axis=0)
        return found, np.zeros(len(found), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class ReverseRanker:
    """The worst product first, so that a list shows whether it was used."""

    scale: Float32
    n_candidates: int = 16
    kind: ClassVar[str] = "test_reverse"

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"scale": self.scale}

    def settings(self) -> dict[str, Any]:
        return {"n_candidates": self.n_candidates}

    @classmethod
    def of(cls, tensors: Tensors, settings: Mapping[str, Any]) -> "ReverseRanker":
        return cls(tensors["scale"], settings["n_candidates"])

    def scores(self, user: Float32, items: Float32) -> NDArray[np.float64]:
        products: NDArray[np.float64] = np.add.reduce(np.multiply(items, user, dtype=np.float64), axis=1)
        return -float(self.scale[0]) * products


@dataclass(frozen=True, eq=False)
class DistanceRanker:
    """The nearer an item is to the user in the coordinates that count, the higher is its score."""

    weights: Float32
    n_candidates: int = 16
    kind: ClassVar[str] = "test_distance"

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"weights": self.weights}

    def settings(self) -> dict[str, Any]:
        return {"n_candidates": self.n_candidates}

    @classmethod
    def of(cls, tensors: Tensors, settings: Mapping[str, Any]) -> "DistanceRanker":
        return cls(tensors["weights"], settings["n_candidates"])

    def scores(self, user: Float32, items: Float32) -> NDArray[np.float64]:
        distances = np.abs(items.astype(np.float64) - user) * self.weights
        scores: NDArray[np.float64] = 2.0 - np.add.reduce(distances, axis=1)
        return scores


@contextmanager
def registered() -> Iterator[None]:
    """Let models name these networks."""
    names = (MeanTower, CategoryTower, ReverseRanker, DistanceRanker)
    added = {network.kind: (__name__, network.__name__) for network in names}
    kinds._KINDS.update(added)
    try:
        yield
    finally:
        for kind in added:
            del kinds._KINDS[kind]


def with_networks(model: ModelSnapshot, *, ranks: bool = False, seed: int = 5) -> ModelSnapshot:
    """Return a model that computes its users by a tower: inputs of width 3, two attributes of four categories."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Float32:
        return rng.normal(size=shape).astype(np.float32)

    n_users, n_items, k = len(model.users), len(model.items), model.n_factors
    networks = Networks(
        MeanTower(normal(3, k), normal(4, k)),
        CategoryTower(normal(4, k)),
        ReverseRanker(np.ones(1, np.float32)) if ranks else None,
        onnx={"user_tower": b"not read by replicas"},
        onnx_difference={"user_tower": 1e-7},
    )
    return replace(
        model,
        input_factors=normal(n_items, 3),
        networks=networks,
        user_inputs=normal(n_users, k),
        user_attributes=rng.integers(0, 4, size=(n_users, 2)).astype(np.int32),
        fold_in=FoldIn(NETWORK, HistoryWeights(window=5)),
        learning_curve=({"epoch": 1, "loss": 0.5},),
    )


def with_features(model: ModelSnapshot) -> ModelSnapshot:
    """Return a model whose tower reads an age of three bands and a gender; every fourth user has no attributes.

    Its users are as the tower computes them.
    """
    people: list[Attributes] = [
        {} if row % 4 == 3 else {"age": 20 + 10 * (row % 3), "gender": "FM"[row % 2]} for row in range(len(model.users))
    ]
    encoder = FeatureEncoder.fit(people, [], min_users=1)
    made = with_networks(model)
    assert made.networks is not None
    made = replace(
        made,
        networks=replace(made.networks, features=encoder),
        user_attributes=encoder.user_table(people),
        item_bias=np.zeros_like(model.item_bias),
    )
    found = [fold_in(made, made.user_history(row), row) for row in range(len(model.users))]
    users = [user for user in found if user is not None]
    return replace(
        made,
        user_factors=np.stack([user.factors for user in users]),
        user_bias=np.array([user.constant - model.global_mean for user in users], dtype=np.float32),
    )
