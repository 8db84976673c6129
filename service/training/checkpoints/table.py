"""The checkpoint of a fit whose state after an epoch is its tables."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.training.checkpoints.fit import Arrays, FitCheckpoint
from service.training.interactions import Interactions


class TableCheckpoint:
    """The tables of a fit after some epochs; outside of `checkpoints_in` none are kept.

    Args:
        algorithm: Its name.
        data: What it learns from.
        config: Its hyperparameters.
        rng: The generator, from which nothing is drawn later than this.
        tables: The tables, which the epochs change in place.
    """

    def __init__(
        self,
        algorithm: str,
        data: Interactions,
        config: Any,
        rng: np.random.Generator,
        tables: Sequence[NDArray[Any]],
    ) -> None:
        self._tables: Final = {f"table_{number}": table for number, table in enumerate(tables)}
        self._checkpoint: Final = FitCheckpoint(algorithm, data, config, rng)

    def resume(self) -> int:
        """Fill the tables from the checkpoint; return the epochs that they have seen, 0 without a checkpoint."""
        kept = self._checkpoint.read()
        if not kept:
            return 0
        for name, table in self._tables.items():
            table[:] = kept[name]
        return int(kept["n_epochs"])

    def keep(self, n_epochs: int) -> None:
        """Keep the tables after some epochs, if it is time to.

        Raises:
            RunError: The checkpoint cannot be written.
        """

        def arrays() -> Arrays:
            return {"n_epochs": np.array(n_epochs), **self._tables}

        self._checkpoint.keep(arrays)
