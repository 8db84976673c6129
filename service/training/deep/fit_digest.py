"""The name of a fit: a digest of everything that its result depends on."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from service.training.algorithms import hyperparameters
from service.training.interactions import Interactions


def fit_digest(algorithm: str, data: Interactions, config: Any, surroundings: Mapping[str, Any]) -> str:
    """Return a digest of a fit.

    Args:
        algorithm: Its name.
        data: What it learns from.
        config: Its hyperparameters.
        surroundings: What the result depends on besides, such as the seed.
    """
    described = {
        "algorithm": algorithm,
        "config": hyperparameters.as_json(config),
        "shape": (len(data.users), len(data.items)),
        "values": (data.rating_min, data.rating_max, data.event_values),
        "torch": torch.__version__,
        **surroundings,
    }
    digest = hashlib.blake2b(json.dumps(described, sort_keys=True, default=str).encode(), digest_size=16)
    # Attributes are found by id, and so the ids count.
    known = [data.items.id_of, data.catalogue.attributes]
    if data.user_catalogue.attributes:
        known += [data.users.id_of, data.user_catalogue.attributes]
    digest.update(json.dumps(known, sort_keys=True, default=str).encode())
    for column in (data.user_rows, data.item_rows, data.ratings, data.timestamps, data.types, data.rated):
        if column is not None:
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()
