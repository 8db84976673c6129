"""The digest of everything that the result of a fit, or of a stage of one, depends on: a checkpoint is named by it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.executors.code_version import own_version
from service.training import hyperparameters
from service.training.interactions import Interactions


def digest_of(described: Mapping[str, Any], arrays: Iterable[NDArray[Any] | bool | None]) -> str:
    """Return a digest of arrays, of what is described, and of the code of this process."""
    text = json.dumps({"code": own_version(), **described}, sort_keys=True, default=str)
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for array in arrays:
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def digest_of_fit(data: Interactions, config: Any, surroundings: Mapping[str, Any]) -> str:
    """Return the digest of a fit.

    Args:
        data: What it learns from.
        config: Its hyperparameters.
        surroundings: What the result depends on besides, such as the state of the generator.
    """
    described = {
        "config": hyperparameters.as_json(config),
        "shape": (len(data.users), len(data.items)),
        "values": (data.rating_min, data.rating_max, data.event_values),
        **surroundings,
    }
    return digest_of(described, (data.user_rows, data.item_rows, data.ratings, data.timestamps, data.types, data.rated))
