"""The checkpoint of a fit of `next_item`: the scores of candidates that are known, then sums and lists, or the factors.

Invariant: a fit that continues ends with the bytes of one that was never interrupted: the generator goes on from where
it was after the last score.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.training.algorithms.kernels.neighbours.lists import sorted_rows
from service.training.algorithms.next_item.factor_form import Factors
from service.training.checkpoints.basis import BasisCheckpoint
from service.training.checkpoints.fit import Arrays, FitCheckpoint, restore, state_of
from service.training.interactions import Interactions

_LISTS: Final = ("data", "indices", "indptr")
_SUMS: Final = "sums_"


class NextItemCheckpoint:
    """What the stages of a fit have found.

    Args:
        data: What it learns from.
        config: Its hyperparameters.
        rng: The generator, as it is before the first stage.

    Attributes:
        basis: The state of the stage in which factors are found.
    """

    def __init__(self, data: Interactions, config: Any, rng: np.random.Generator) -> None:
        self._rng: Final = rng
        self._checkpoint: Final = FitCheckpoint("next_item", data, config, rng)
        self._found: Final = dict(self._checkpoint.read())
        self.basis: Final = BasisCheckpoint(self._checkpoint, self._found, rng)

    def scores(self) -> list[float]:
        """Return the scores that are known, in the order of candidates."""
        found: list[float] = self._found.get("scores", np.zeros(0)).tolist()
        return found

    def restore_generator(self) -> None:
        """Bring the generator into its state after the last score; unless none is known, the validation is drawn."""
        if "rng" in self._found:
            restore(self._rng, self._found["rng"])

    def keep_scores(self, scores: list[float]) -> None:
        """Keep the scores of the first candidates.

        Raises:
            RunError: The checkpoint cannot be written.
        """
        self._keep(scores=np.array(scores), rng=state_of(self._rng))

    def sums(self) -> list[NDArray[Any]] | None:
        """Give up the sums over pairs, see `list_form.SumsCheckpoint`, if they are known."""
        n_arrays = sum(name.startswith(_SUMS) for name in self._found)
        return [self._found.pop(f"{_SUMS}{number}") for number in range(n_arrays)] or None

    def keep_sums(self, sums: Callable[[], Sequence[NDArray[Any]]]) -> None:
        """Keep the sums over pairs.

        Raises:
            RunError: The checkpoint cannot be written.
        """

        def arrays() -> Arrays:
            return {**self._found, **{f"{_SUMS}{number}": array for number, array in enumerate(sums())}}

        self._checkpoint.keep(arrays)

    def lists(self) -> csr_array | None:
        """Return the lists of next items, if they are known."""
        if _LISTS[0] not in self._found:
            return None
        n_items = self._found["indptr"].size - 1
        return sorted_rows(csr_array(tuple(self._found[part] for part in _LISTS), shape=(n_items, n_items)))

    def keep_lists(self, lists: csr_array) -> None:
        """Keep the lists of next items.

        Raises:
            RunError: The checkpoint cannot be written.
        """
        self._keep(**{part: getattr(lists, part) for part in _LISTS})

    def factors(self) -> Factors | None:
        """Return the factors of items, if they are known."""
        if "inputs" not in self._found:
            return None
        return Factors(self._found["inputs"], self._found["items"])

    def keep_factors(self, factors: Factors) -> None:
        """Keep the factors of items.

        Raises:
            RunError: The checkpoint cannot be written.
        """
        self._keep(**factors._asdict())

    def _keep(self, **found: Any) -> None:
        self.basis.end()
        self._found.update(found)
        self._checkpoint.keep(lambda: self._found)
