"""The part of a model that fold-in reads."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.settings import FoldIn
from service.models.networks.networks import Networks


class ItemTables(Protocol):
    """The item tables of a model, and how it folds in; `ModelSnapshot` is one."""

    @property
    def fold_in(self) -> FoldIn | None:
        """How the model folds in; None if it cannot."""

    @property
    def global_mean(self) -> float:
        """In units of the rating scale."""

    @property
    def rating_min(self) -> float:
        """Lower end of the rating scale."""

    @property
    def rating_max(self) -> float:
        """Upper end of the rating scale."""

    @property
    def item_bias(self) -> NDArray[np.float32]:
        """Float32 (n_items,)."""

    @property
    def item_factors(self) -> NDArray[np.float32]:
        """Float32 (n_items, k)."""

    @property
    def input_factors(self) -> NDArray[np.float32] | None:
        """Float32 (n_items, k), the factors of items as inputs; None if `item_factors` are."""

    @property
    def fold_in_precision(self) -> NDArray[np.float64] | None:
        """Float64, added to the Gramian of a regression.

        Of shape (k, k), (k + 1, k + 1) with the user's bias last, or (1, k), a diagonal.
        """

    @property
    def networks(self) -> Networks | None:
        """The networks of the model; None if it has none."""

    @property
    def user_inputs(self) -> NDArray[np.float32] | None:
        """Float32 (n_users, d), the vector of each user as an input of the user tower; None if it has no such input."""

    @property
    def user_attributes(self) -> NDArray[np.int32] | None:
        """Int32 (n_users, c), the categories of each user; None if the model has none."""
