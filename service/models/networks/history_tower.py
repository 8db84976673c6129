"""A user tower over a history: sums of item embeddings and the user's attributes, through a perceptron."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused
from service.models.networks.history_inputs import HistoryInputs
from service.models.networks.inputs import InputTables, TowerOutput, UserInput
from service.models.networks.network import Tensors
from service.models.networks.perceptron import Perceptron, require_finite
from service.models.networks.tower_outputs import TowerOutputs

Float32 = NDArray[np.float32]
_ATTRIBUTES: Final = "attributes"


class HistoryTower:
    """A user tower over a history.

    Args:
        inputs: How the history becomes numbers.
        sizes: The categories of each column of the user's attributes, with the unknown one.
        attributes: Float32 (sum of sizes, a), a vector for each category of each column; their sum is a part of the
            input.
        perceptron: From the numbers of the history and a more to the outputs.
        outputs: How these become factors.

    Raises:
        ModelRefused: They do not fit each other, or a number is not finite.
    """

    kind: ClassVar[str] = "history_tower"
    is_slow: ClassVar[bool] = False

    def __init__(
        self,
        inputs: HistoryInputs,
        sizes: tuple[int, ...],
        attributes: Float32,
        perceptron: Perceptron,
        outputs: TowerOutputs,
    ) -> None:
        self.inputs: Final = inputs
        self.outputs: Final = outputs
        self.sizes: Final = sizes
        self._attributes: Final = attributes
        self._perceptron: Final = perceptron
        outputs.check(perceptron.n_outputs)
        require_finite(_ATTRIBUTES, attributes)
        if min(sizes, default=1) < 1 or attributes.ndim != 2 or len(attributes) != sum(sizes):
            raise ModelRefused(f"A user tower has {attributes.shape} vectors for columns of {sizes} categories.")
        if perceptron.n_inputs != inputs.n_numbers + attributes.shape[1]:
            raise ModelRefused(
                f"A user tower has {perceptron.n_inputs} inputs for {inputs.n_numbers} numbers of a history and "
                f"{attributes.shape[1]} of attributes."
            )

    def user(self, given: UserInput, tables: InputTables) -> TowerOutput:
        """Compute a user; one of whom nothing is known has no factors, and so gets the popular list.

        A column of attributes that is missing, and a category out of range, is unknown.
        """
        numbers, categories = self.inputs.of(given.history, tables), self._known(given.attributes)
        # The count of interactions is above 0 unless none has a weight.
        if not numbers[-1] and not categories.any():
            return TowerOutput(np.zeros(self.outputs.n_factors, dtype=np.float32))
        of_attributes = np.add.reduce(self._attributes.take(self._starts + categories, axis=0), axis=0)
        factors, biases = self.outputs.split(self._perceptron(np.concatenate([numbers, of_attributes]))[np.newaxis])
        return TowerOutput(factors[0], float(biases[0]))

    def _known(self, categories: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return a category for each column, int64 (c,)."""
        known = np.zeros(len(self.sizes), dtype=np.int64)
        known[: categories.size] = categories[: known.size]
        known[(known < 0) | (known >= self._limits)] = 0
        return known

    @cached_property
    def _limits(self) -> NDArray[np.int64]:
        return np.array(self.sizes, dtype=np.int64)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The first row of each column in the table of vectors."""
        return np.cumsum(self._limits) - self._limits

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the weights by name."""
        return {_ATTRIBUTES: self._attributes, **self._perceptron.tensors()}

    def settings(self) -> dict[str, Any]:
        """Return everything else as plain JSON values."""
        return {"inputs": self.inputs.to_json(), "sizes": list(self.sizes), "outputs": self.outputs.to_json()}

    @classmethod
    def of(cls, tensors: Tensors, settings: Mapping[str, Any]) -> "HistoryTower":
        """Build it from `tensors()` and `settings()`.

        Raises:
            ModelRefused: A tensor or a setting is missing, does not fit the others, or is not finite.
        """
        try:
            inputs, outputs = settings["inputs"], settings["outputs"]
            sizes, attributes = tuple(map(int, settings["sizes"])), tensors[_ATTRIBUTES]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelRefused(f"A user tower lacks a value or has an invalid one: {error}.") from error
        return cls(
            HistoryInputs.from_json(inputs),
            sizes,
            attributes,
            Perceptron.of(tensors),
            TowerOutputs.from_json(outputs),
        )
