"""The kinds of networks that a model may have; each has an implementation or more, see `kinds`.

A network is a pure function: the same input gives the same bits while linear algebra runs on one thread, as it does in
a replica. Large tables, such as embeddings of items and users, are arrays of the model, which replicas share.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from service.models.features.item_features import ItemFeatures
from service.models.networks.inputs import InputTables, TowerOutput, UserInput

Tensors = Mapping[str, NDArray[Any]]


class Network(Protocol):
    """What is published as one file of weights."""

    kind: ClassVar[str]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the weights by name."""

    def settings(self) -> dict[str, Any]:
        """Return everything else as plain JSON values."""

    @classmethod
    def of(cls, tensors: Tensors, settings: Mapping[str, Any]) -> Self:
        """Build it from `tensors()` and `settings()`.

        Raises:
            ModelRefused: A tensor or a setting is missing, does not fit the others, or is not finite.
        """


class UserTower(Network, Protocol):
    """Computes users in the space of the item factors.

    Attributes:
        is_slow: Whether a user takes a good part of a millisecond or more, so that a thread computes users with live
            events, in place of the event loop.
    """

    is_slow: ClassVar[bool]

    def user(self, given: UserInput, tables: InputTables) -> TowerOutput:
        """Compute a user.

        Args:
            given: The user.
            tables: The item tables of the model.
        """


@runtime_checkable
class OrderedTower(Protocol):
    """A user tower that reads interactions in their order, from no user at all, and can tell what each changed."""

    def after_each(self, given: UserInput, tables: InputTables) -> NDArray[np.float32]:
        """Compute a user after each interaction: float32 (m, k); the last row is that of `UserTower.user`."""


class ItemTower(Network, Protocol):
    """Computes items that the model was not trained on."""

    def items(self, features: ItemFeatures) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the factors of items, float32 (m, k), and their biases, float32 (m,)."""


class Ranker(Network, Protocol):
    """Scores the candidates of a list, in place of the product of their factors with the user's.

    Attributes:
        n_candidates: How many of the best items by that product are ranked together; it belongs to the model, so that
            lists are the same wherever they are made.
    """

    @property
    def n_candidates(self) -> int:
        """See the class."""

    def scores(self, user: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray[np.float64]:
        """Score items.

        A score does not depend on the other items.

        Args:
            user: Float32 (k,), the user's factors.
            items: Float32 (m, k), the items' factors.

        Returns:
            float64 (m,).
        """
