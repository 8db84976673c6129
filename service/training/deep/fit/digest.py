"""The digest of the fit of a network: of everything that its result depends on."""

from collections.abc import Mapping
from typing import Any

import torch

from service.training.checkpoints.digest import digest_of_fit
from service.training.interactions import Interactions


def fit_digest(algorithm: str, data: Interactions, config: Any, surroundings: Mapping[str, Any]) -> str:
    """Return a digest of a fit.

    Args:
        algorithm: Its name.
        data: What it learns from.
        config: Its hyperparameters.
        surroundings: What the result depends on besides, such as the seed.
    """
    # Attributes are found by id, and so the ids count.
    known: list[Any] = [data.items.id_of, data.catalogue.attributes]
    if data.user_catalogue.attributes:
        known += [data.users.id_of, data.user_catalogue.attributes]
    described = {"algorithm": algorithm, "known": known, "torch": torch.__version__}
    return digest_of_fit(data, config, {**described, **surroundings})
