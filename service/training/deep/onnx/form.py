"""A published network in the form in which it is exported: a PyTorch module with named inputs and outputs."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Named = dict[str, NDArray[Any]]
"""Arrays by the names of inputs or outputs."""


class OnnxForm(NamedTuple):
    """What is exported, and how it is checked.

    Attributes:
        module: Takes the inputs in their order, and returns the outputs in theirs.
        outputs: The names of the outputs, at least one.
        axes: By input: the names of its axes of free length; axes of one name have one length.
        example: Draws inputs, of a length that is given for each named axis.
        in_numpy: Computes the outputs as a replica does.
    """

    module: torch.nn.Module
    outputs: tuple[str, ...]
    axes: Mapping[str, Mapping[int, str]]
    example: Callable[[np.random.Generator, int], Named]
    in_numpy: Callable[[Named], Named]
