"""An item tower over categories: the mean of their vectors, through a perceptron."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused
from service.models.features.item_features import ItemFeatures
from service.models.networks.network import Tensors
from service.models.networks.perceptron import Perceptron, require_finite
from service.models.networks.tower_outputs import TowerOutputs

Float32 = NDArray[np.float32]
_CATEGORIES: Final = "categories"


class CategoryTower:
    """An item tower over categories.

    Args:
        categories: Float32 (n_categories, d), a vector for each category; row 0 is that of an unknown one.
        perceptron: From d inputs to the outputs.
        outputs: How these become factors.

    Raises:
        ModelRefused: They do not fit each other, or a number is not finite.
    """

    kind: ClassVar[str] = "category_tower"

    def __init__(self, categories: Float32, perceptron: Perceptron, outputs: TowerOutputs) -> None:
        self.outputs: Final = outputs
        self._categories: Final = categories
        self._perceptron: Final = perceptron
        outputs.check(perceptron.n_outputs)
        require_finite(_CATEGORIES, categories)
        if categories.ndim != 2 or not len(categories) or categories.shape[1] != perceptron.n_inputs:
            raise ModelRefused(
                f"An item tower has {categories.shape} vectors of categories and {perceptron.n_inputs} inputs."
            )

    def items(self, features: ItemFeatures) -> tuple[Float32, Float32]:
        """Return factors, float32 (m, k), and biases, float32 (m,), of items of which only the categories are known."""
        return self.outputs.split(self._perceptron(self.means(features)))

    def means(self, features: ItemFeatures) -> Float32:
        """Return the mean of the vectors of the categories of m items: float32 (m, d); of none, zeros."""
        ids = features.ids.astype(np.int64)
        ids[(ids < 0) | (ids >= len(self._categories))] = 0
        sizes = np.diff(features.indptr)
        means = np.zeros((sizes.size, self._categories.shape[1]), dtype=np.float32)
        if ids.size:
            means[sizes > 0] = np.add.reduceat(self._categories[ids], features.indptr[:-1][sizes > 0], axis=0)
        means /= np.maximum(sizes, 1).astype(np.float32)[:, np.newaxis]
        return means

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the weights by name."""
        return {_CATEGORIES: self._categories, **self._perceptron.tensors()}

    def settings(self) -> dict[str, Any]:
        """Return everything else as plain JSON values."""
        return {"outputs": self.outputs.to_json()}

    @classmethod
    def of(cls, tensors: Tensors, settings: Mapping[str, Any]) -> "CategoryTower":
        """Build it from `tensors()` and `settings()`.

        Raises:
            ModelRefused: A tensor or a setting is missing, does not fit the others, or is not finite.
        """
        try:
            categories, outputs = tensors[_CATEGORIES], settings["outputs"]
        except (KeyError, TypeError) as error:
            raise ModelRefused(f"An item tower lacks a value: {error}.") from error
        return cls(categories, Perceptron.of(tensors), TowerOutputs.from_json(outputs))
