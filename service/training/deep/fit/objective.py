"""What a network learns: the batches of an epoch and their loss, such that processes can share a batch."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from service.training.deep.group.share import Share

D = TypeVar("D")
B = TypeVar("B")


def n_terms_of(batch: Any) -> int:
    """Return the attribute `n_terms` of a batch."""
    n_terms: int = batch.n_terms
    return n_terms


@dataclass(frozen=True)
class Objective(Generic[D, B]):
    """The mean of a loss over the terms of a batch.

    Attributes:
        drafts: Returns what is drawn for the batches of one epoch, from the given generator alone. Drawing must be
            cheap: a training that continues within an epoch draws its first batches again, and each process of a group
            draws those of all.
        batch: Returns the part of a batch that is given by a share of its draft: tensors, or tuples, lists and dicts
            of them.
        loss: Returns the sum of the terms of a part.
        n_terms: Returns the number of terms of the whole batch, given a part of it; a term that several processes
            compute counts for each of them.
    """

    drafts: Callable[[np.random.Generator], Iterable[D]]
    batch: Callable[[D, Share], B]
    loss: Callable[[B], torch.Tensor]
    n_terms: Callable[[B], int] = n_terms_of
