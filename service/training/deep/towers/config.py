"""Hyperparameters of the shape of two towers, which the Config of every pair has."""

from dataclasses import dataclass
from typing import Annotated

from service.training.deep.fit.network_training import NetworkTraining


@dataclass(frozen=True)
class TowerConfig(NetworkTraining):
    """Hyperparameters of all pairs of towers."""

    n_factors: Annotated[
        int, {"unit": "factors", "least": 1, "most": 4096, "search": (16, 128, "log")}, "Outputs of both towers."
    ] = 32
    hidden_units: Annotated[
        int,
        {"unit": "units", "least": 2, "most": 1 << 14, "search": (64, 1024, "log")},
        "Units of the first hidden layer of both towers; the second has half of them.",
    ] = 256
    width: Annotated[
        int,
        {"unit": "numbers", "least": 1, "most": 4096, "search": (16, 128, "log")},
        "Length of the vectors of items and categories as inputs of the towers.",
    ] = 64
    dropout: Annotated[
        float, {"least": 0, "most": 0.9, "search": (0, 0.5)}, "Share of hidden units left out in a step."
    ] = 0.0
    unknown_share: Annotated[
        float,
        {"least": 0, "most": 0.9},
        "Share of items in a step of which only the categories are given, and of attributes of users left out.",
    ] = 0.1

    @property
    def units(self) -> tuple[int, int]:
        """The units of the hidden layers."""
        return self.hidden_units, self.hidden_units // 2
