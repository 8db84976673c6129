"""The checkpoint of a fit whose state after an epoch is its tables.

Invariant: a fit that continues from its checkpoint ends with the bytes of one that was never interrupted. So the name
of the checkpoint is a digest of everything that the tables depend on.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from service.training.algorithms import hyperparameters
from service.training.checkpoint_folder import Checkpoint, are_kept
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
        self._tables: Final = tables
        self._checkpoint = Checkpoint(f"{algorithm}-{_digest(data, config, rng)}") if are_kept() else None

    def resume(self) -> int:
        """Fill the tables from the checkpoint; return the epochs that they have seen, 0 without a checkpoint.

        One that cannot be read is removed.
        """
        content = None if self._checkpoint is None else self._checkpoint.read()
        if self._checkpoint is None or content is None:
            return 0
        file = io.BytesIO(content)
        try:
            n_epochs, *kept = [np.load(file, allow_pickle=False) for _ in range(1 + len(self._tables))]
        except (ValueError, OSError, EOFError):
            self._checkpoint.remove()
            return 0
        for table, values in zip(self._tables, kept, strict=True):
            table[:] = values
        return int(n_epochs)

    def keep(self, n_epochs: int) -> None:
        """Keep the tables after some epochs, if it is time to.

        Raises:
            RunError: The checkpoint cannot be written.
        """
        if self._checkpoint is None or not self._checkpoint.is_due:
            return

        def content(file: BinaryIO) -> None:
            for array in (np.array(n_epochs), *self._tables):
                np.save(file, array, allow_pickle=False)

        self._checkpoint.write(content)


def _digest(data: Interactions, config: Any, rng: np.random.Generator) -> str:
    """Return a digest of everything that the tables depend on."""
    described = {
        "config": hyperparameters.as_json(config),
        "rng": rng.bit_generator.state,
        "shape": (len(data.users), len(data.items)),
        "values": (data.rating_min, data.rating_max, data.event_values),
        "numpy": np.__version__,
    }
    digest = hashlib.blake2b(json.dumps(described, sort_keys=True, default=str).encode(), digest_size=16)
    for column in (data.user_rows, data.item_rows, data.ratings, data.timestamps, data.types, data.rated):
        if column is not None:
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()
