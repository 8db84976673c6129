"""The checkpoint of one fit: arrays by name, in a file whose name is a digest of everything that they depend on.

Invariant: a fit that continues from its checkpoint ends with the bytes of one that was never interrupted.
"""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.training.checkpoints.digest import digest_of_fit
from service.training.checkpoints.folder import Checkpoint, are_kept
from service.training.interactions import Interactions

Arrays: TypeAlias = Mapping[str, NDArray[Any]]


class FitCheckpoint:
    """The arrays of a fit; outside of `checkpoints_in` none are kept.

    Args:
        algorithm: Its name.
        data: What it learns from.
        config: Its hyperparameters.
        rng: Its generator. What is drawn later than this must be repeated, or kept by `state_of`.
    """

    def __init__(self, algorithm: str, data: Interactions, config: Any, rng: np.random.Generator) -> None:
        self._checkpoint = None
        if are_kept():
            digest = digest_of_fit(data, config, {"rng": rng.bit_generator.state})
            self._checkpoint = Checkpoint(f"{algorithm}-{digest}")

    def read(self) -> Arrays:
        """Return what was kept last; nothing if none was, or if it cannot be read and is removed."""
        content = None if self._checkpoint is None else self._checkpoint.read()
        if self._checkpoint is None or content is None:
            return {}
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as kept:
                return dict(kept)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile):
            self._checkpoint.remove()
            return {}

    def keep(self, arrays: Callable[[], Arrays]) -> None:
        """Replace what is kept by arrays, if it is time to.

        Raises:
            RunError: The checkpoint cannot be written.
        """
        if self._checkpoint is None or not self._checkpoint.is_due:
            return

        def content(file: BinaryIO) -> None:
            state: dict[str, Any] = dict(arrays())
            np.savez(file, **state)

        self._checkpoint.write(content)


def state_of(rng: np.random.Generator) -> NDArray[Any]:
    """Return the state of a generator as an array."""
    return np.array(json.dumps(rng.bit_generator.state))


def restore(rng: np.random.Generator, state: NDArray[Any]) -> None:
    """Bring a generator into a state that `state_of` has returned."""
    rng.bit_generator.state = json.loads(str(state))
