"""The state of a randomised singular value decomposition in the checkpoint of a fit: its basis, then what it has found.

Invariant: the basis belongs to the same state of the fit as the other arrays beside it, and a later decomposition of
the fit begins without it, see `end`.
"""

from collections.abc import Callable, MutableMapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.training.algorithms.kernels.sparse.randomised_svd import Turned
from service.training.checkpoints.fit import Arrays, FitCheckpoint, restore, state_of
from service.training.interactions import Float32, Float64

_STEPS: Final = "basis_steps"
_TABLE: Final = "basis"
_VALUES: Final = "singular_values"
_RNG: Final = "basis_rng"


class BasisCheckpoint:
    """How far a decomposition has come, by threads or by workers.

    Args:
        checkpoint: That of the fit.
        found: Its other arrays, and at first those of the basis that were kept.
        rng: Draws the first table of a decomposition.
    """

    def __init__(
        self, checkpoint: FitCheckpoint, found: MutableMapping[str, NDArray[Any]], rng: np.random.Generator
    ) -> None:
        self._checkpoint: Final = checkpoint
        self._found: Final = found
        self._rng: Final = rng

    def resume(self) -> Turned | None:
        """Return the state that was kept last, and bring the generator into its own; None if none was kept."""
        if _STEPS not in self._found:
            return None
        # Taken out, because a table that was kept may be the largest of the fit, and the decomposition replaces it.
        n_steps, table, values, rng = map(self._found.pop, (_STEPS, _TABLE, _VALUES, _RNG))
        restore(self._rng, rng)
        return Turned(int(n_steps), table, values)

    def keep(self, n_steps: int, table: Callable[[], Float32], values: Float64) -> None:
        """Keep the state after a step, if it is time to.

        Raises:
            RunError: The checkpoint cannot be written.
        """

        def arrays() -> Arrays:
            state = {_STEPS: np.array(n_steps), _TABLE: table(), _VALUES: values, _RNG: state_of(self._rng)}
            return {**self._found, **state}

        self._checkpoint.keep(arrays)

    def end(self) -> None:
        """Forget the state, because what follows from it is among the other arrays."""
        for name in (_STEPS, _TABLE, _VALUES, _RNG):
            self._found.pop(name, None)
