"""What networks that rank learn from a data set, and what they are validated on."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.history.weights import HistoryWeights
from service.models.networks.history_inputs import HistoryInputs
from service.training.data.features import DataFeatures
from service.training.deep.batches.loaders import rows_of_step
from service.training.deep.next_item.batches import NextBatches
from service.training.deep.next_item.validation import NextValidation, last_of_users
from service.training.entry_weights import are_positive
from service.training.interactions import Int64, Interactions

# Of the half-life of the user's interactions.
_SHORTER: Final = 0.25
_LONGER: Final = 4.0


@dataclass(frozen=True, eq=False)
class NextTask:
    """The next items of users, and the last ones of some users for validation.

    Attributes:
        features: Of the data's users and items.
        inputs: How histories become numbers.
        batches: The interactions that are learnt.
        judged: Int64 (j,), the positions of those that are hidden.
        validation: The lists of their users.
        is_known: Bool (n_items,), the items that are learnt.
    """

    features: DataFeatures
    inputs: HistoryInputs
    batches: NextBatches
    judged: Int64
    validation: NextValidation
    is_known: NDArray[np.bool_]

    @classmethod
    def of(
        cls, data: Interactions, inputs: HistoryInputs, batch_size: int, n_drawn: int, rng: np.random.Generator
    ) -> "NextTask":
        """Set the last interactions of some users aside.

        Args:
            data: All interactions.
            inputs: How histories become numbers.
            batch_size: The most interactions of a step; small data has fewer.
            n_drawn: Items drawn evenly for each step.
            rng: Draws the users.
        """
        features = DataFeatures.of(data)
        is_positive = are_positive(data, inputs.weights)
        ordered = data
        if not data.has_order:
            # Any order is as good as another, but that of the source, in which items may follow each other by their
            # ids. A generator of its own draws it, so that it is not undone where another of this seed has shuffled.
            ordered = replace(data, timestamps=rng.spawn(1)[0].permutation(len(data)))
        judged = last_of_users(ordered, is_positive, rng)
        is_learnt = is_positive.copy()
        is_learnt[judged] = False
        learnt = np.flatnonzero(is_learnt)
        is_known = np.bincount(data.item_rows[learnt], minlength=len(data.items)) > 0
        return cls(
            features,
            inputs,
            NextBatches(ordered, features, inputs, learnt, rows_of_step(batch_size, learnt.size), n_drawn),
            judged,
            NextValidation(ordered, judged, is_known),
            is_known,
        )


def chosen_inputs(weights: HistoryWeights, width: int) -> HistoryInputs:
    """Return how histories become numbers: sums with the half-life of the weights, a quarter and four times of it.

    Args:
        weights: Of interactions; without a half-life there is one sum, without decay.
        width: Of the embeddings.
    """
    half_life = weights.half_life
    half_lives = (0.0,) if half_life is None else (_SHORTER * half_life, half_life, _LONGER * half_life)
    return HistoryInputs(width, half_lives, 1.0, None, replace(weights, half_life=None))
