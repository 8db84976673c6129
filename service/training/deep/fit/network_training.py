"""Hyperparameters of the training loop, which the Config of every network has."""

from dataclasses import dataclass
from typing import Annotated

from service.training.hyperparameters import Hyperparameters


@dataclass(frozen=True)
class NetworkTraining(Hyperparameters):
    """The base of the Configs of networks; a network declares a field again to change its default."""

    n_epochs: Annotated[
        int,
        {"unit": "epochs", "least": 1, "most": 10_000},
        "The most passes over the interactions; fewer if the validation stops improving.",
    ] = 50
    patience: Annotated[
        int,
        {"unit": "epochs", "least": 0, "most": 10_000},
        "Epochs without a better validation after which training stops; 0 for never.",
    ] = 5
    batch_size: Annotated[int, {"unit": "rows", "least": 1, "most": 1 << 20}, "Rows of the data per step."] = 512
    lr: Annotated[
        float, {"least": 1e-6, "most": 10, "search": (3e-4, 1e-2, "log")}, "Learning rate of the optimiser."
    ] = 0.001
    weight_decay: Annotated[
        float,
        {"least": 0, "most": 10, "search": (1e-5, 1e-1, "log")},
        "Decoupled weight decay per step, relative to the learning rate (AdamW); 0 for Adam.",
    ] = 0.0
    clip_norm: Annotated[
        float, {"least": 0, "most": 1e6}, "The largest norm of all gradients of a step; 0 for no limit."
    ] = 0.0
    average_every: Annotated[
        int,
        {"unit": "batches", "least": 0, "most": 1_000_000},
        "On several workers: batches of each one after which their parameters are averaged; 0 to share every batch and "
        "add gradients, which computes what one process computes.",
    ] = 0
