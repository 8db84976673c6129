"""Fits by a training group: of a small network, whose members kill each other, and of all networks."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pytest
import torch

from service.errors import LeftGroup
from service.executors.member import Member
from service.training.algorithms.registry import Fit
from service.training.data import datasets
from service.training.deep.fit.network_training import NetworkTraining
from service.training.deep.fit.torch_run import torch_run
from service.training.deep.fit.training_loop import Validation
from service.training.deep.group.group import Group, group_in_use, training_in
from service.training.deep.group.share import ALONE
from service.training.interactions import Interactions, Progress, no_progress
from service.training.networks import next_item_softmax
from tests.support.networks.small_network import Ratings, SmallNetwork


@dataclass(frozen=True)
class SmallConfig(NetworkTraining):
    """Of a small network; in the first start of its group, a member is killed before one of its steps."""

    killed_rank: Annotated[int, {"least": -1}, "The member that is killed; -1 for none."] = -1
    killed_step: Annotated[int, {"least": 0}, "Its step, from 1."] = 0


def fit_small(data: Interactions, config: Any, rng: np.random.Generator, progress: Progress) -> Any:
    """Return the bytes of the trained network, its learning curve, and how often its group was started before.

    Args:
        config: A `SmallConfig`.
    """
    group = group_in_use()
    n_steps = 0
    with torch_run("small", data, config, rng, progress) as run:
        network = SmallNetwork(len(data.users), len(data.items))

        def loss(batch: Ratings) -> torch.Tensor:
            nonlocal n_steps
            n_steps += 1
            if group is not None and (group.member.attempt, group.share.rank, n_steps) == (
                *(0, config.killed_rank),
                config.killed_step,
            ):
                os.kill(os.getpid(), signal.SIGKILL)
            return network.loss(batch)

        some = network.objective(data, 200).batch(torch.arange(200), ALONE)

        def error() -> float:
            return float((network(some) - some.ratings).square().mean().sqrt())

        run.train(
            network,
            network.objective(data, config.batch_size, loss),
            validation=Validation("rmse", error, larger_is_better=False),
        )
        state = b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())
    return state, run.curve, 0 if group is None else group.member.attempt


def fitted_by_group(member: Member, fits: list[tuple[Fit, Any, str]]) -> list[Any]:
    """Do some fits, (fit, config, data) each, as a member of a group that stays together."""
    group = Group(member)
    found: list[Any] = []
    for fit, config, data in fits:
        with training_in(group), in_float32():
            try:
                found.append(fit(datasets.read(data), config, np.random.default_rng(3), no_progress))
            except LeftGroup:
                found.append(None)
    return found


@contextmanager
def in_float32() -> Iterator[None]:
    """Multiply in float32 also on a processor that can in bfloat16, to which sums of parts would be rounded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(next_item_softmax, "multiplies_bfloat16", lambda: False)
        yield
