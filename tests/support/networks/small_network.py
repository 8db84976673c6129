"""A network of a few hundred parameters with dropout and a buffer, trained by the loop of all networks.

As a program, it trains in processes that it kills: `python -m tests.support.networks.small_network FOLDER`.
"""

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch._dynamo  # which an optimiser imports, and a forked process would again

from service.training.algorithms.kernels import threads
from service.training.checkpoints.folder import checkpoints_in
from service.training.data import datasets
from service.training.deep.fit.network_training import NetworkTraining
from service.training.deep.fit.objective import Objective
from service.training.deep.fit.torch_run import torch_run
from service.training.deep.fit.training_loop import Validation
from service.training.deep.group.row_draws import RowDropout, drawing_for
from service.training.deep.group.share import ALONE, Rows, Share
from service.training.interactions import Interactions, Progress, no_progress

DATA = "demo:60x40x900"
PROGRAM_CONFIG = NetworkTraining(n_epochs=4, batch_size=150, patience=3, lr=0.01, clip_norm=1.0)


class Ratings(NamedTuple):
    users: torch.Tensor
    items: torch.Tensor
    ratings: torch.Tensor
    rows: Rows


class SmallNetwork(torch.nn.Module):
    """Factors with dropout; the buffer counts the steps that a resumed fit must not forget."""

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.users = torch.nn.Embedding(n_users, 4)
        self.items = torch.nn.Embedding(n_items, 4)
        self.mean = torch.nn.Parameter(torch.tensor(3.0))
        self.dropout = RowDropout(0.2)
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Ratings) -> torch.Tensor:
        with drawing_for(batch.rows):
            return self.mean + (self.dropout(self.users(batch.users)) * self.items(batch.items)).sum(dim=1)

    def loss(self, batch: Ratings) -> torch.Tensor:
        self.n_seen += batch.users.numel()
        return torch.nn.functional.mse_loss(self(batch), batch.ratings, reduction="sum")

    def objective(
        self, data: Interactions, batch_size: int, loss: Callable[[Ratings], torch.Tensor] | None = None
    ) -> Objective[torch.Tensor, Ratings]:
        """Return the mean square of errors, or another loss, of random ratings."""
        whole = Ratings(
            torch.from_numpy(data.user_rows.astype(np.int64)),
            torch.from_numpy(data.item_rows.astype(np.int64)),
            torch.from_numpy(data.ratings),
            ALONE.rows(len(data)),
        )

        def drafts(generator: np.random.Generator) -> Iterator[torch.Tensor]:
            order = torch.from_numpy(generator.permutation(len(data)))
            yield from order.split(batch_size)

        def batch(draft: torch.Tensor, share: Share) -> Ratings:
            rows = share.rows(draft.numel())
            own = draft[rows.places]
            return Ratings(whole.users[own], whole.items[own], whole.ratings[own], rows)

        return Objective(drafts, batch, loss or self.loss, lambda batch: batch.rows.n_terms)


def trained(
    config: NetworkTraining,
    *,
    seed: int = 0,
    progress: Progress = no_progress,
    before_step: Callable[[], None] = lambda: None,
    validation: Validation | None = None,
    measured: bool = False,
    scale: float = 1.0,
) -> tuple[bytes, tuple[dict[str, Any], ...]]:
    """Return the bytes of the trained network, and its learning curve.

    Args:
        before_step: Called before every step.
        validation: Decides which epoch is kept.
        measured: Validate by the error on some of the ratings.
        scale: A factor of the loss.
    """
    data = datasets.read(DATA)
    with torch_run("small", data, config, np.random.default_rng(seed), progress) as run:
        network = SmallNetwork(len(data.users), len(data.items)).to(run.device)
        objective = network.objective(data, 200)
        some = objective.batch(next(iter(objective.drafts(np.random.default_rng(0)))), ALONE)
        if measured:
            validation = Validation(
                "rmse", lambda: float((network(some) - some.ratings).square().mean().sqrt()), larger_is_better=False
            )

        def loss(batch: Ratings) -> torch.Tensor:
            before_step()
            return scale * network.loss(batch)

        run.train(network, network.objective(data, config.batch_size, loss), validation=validation)
        assert not network.training
        state = network.state_dict()
    return b"".join(tensor.cpu().numpy().tobytes() for tensor in state.values()), run.curve


def main(folder: str) -> None:
    """Print how often the training was killed, whether it ended by itself, and what it learnt; then the same without.

    Each training is a process of its own, forked before PyTorch has started a thread, because its import takes seconds.
    """
    n_kills = 0
    while (found := _in_a_process(Path(folder), 4 + 3 * n_kills)) is None:
        n_kills += 1
    print(n_kills)
    print(found)
    print(_in_a_process(Path(folder) / "never", 1 << 30))


def _in_a_process(folder: Path, n_steps: int) -> str | None:
    """Train in a process, which is killed before its nth step; return a digest, or None if it was killed."""
    receiving, sending = os.pipe()
    child = os.fork()
    if not child:
        os.close(receiving)
        _train(folder, sending)
        os._exit(0)
    os.close(sending)
    received = b""
    with os.fdopen(receiving, "rb", buffering=0) as pipe:
        while chunk := pipe.read(1):
            received += chunk
            if received.count(b".") == n_steps:
                os.kill(child, signal.SIGKILL)
                break
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return None
    if status:
        raise SystemExit("The training failed.")
    return received.strip(b".").decode()


def _train(folder: Path, report: int) -> None:
    """Train, with a checkpoint after each step; write a point before each step and a digest at the end."""
    with checkpoints_in(folder, 0.0), threads.limit(1):
        found, curve = trained(PROGRAM_CONFIG, before_step=lambda: _written(report, b"."), measured=True)
    _written(report, hashlib.sha256(found + repr(curve).encode()).hexdigest().encode())


def _written(report: int, what: bytes) -> None:
    os.write(report, what)


if __name__ == "__main__":
    main(sys.argv[1])
