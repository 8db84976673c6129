"""The training loop of all networks: steps, validation, early stopping, checkpoints.

Invariant: the state of the loop after a step is a function of its state before the step. It consists of the network,
the optimiser, the best state, the learning curve, and the place in the epoch; generators are seeded anew for each
epoch. So a loop that continues from a checkpoint ends with the bits of one that was never interrupted.
"""

import io
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, BinaryIO, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from service.errors import TrainingDiverged
from service.training.deep.fit_context import FitContext
from service.training.deep.learning_curve import LearningCurve

B = TypeVar("B")


class Validation(NamedTuple):
    """What decides which epoch is kept.

    Attributes:
        measure: Its name, such as "ndcg@10"; also in the learning curve.
        value: Called after each epoch, with the network in evaluation mode and without gradients.
        larger_is_better: False for an error.
    """

    measure: str
    value: Callable[[], float]
    larger_is_better: bool = True


class TrainingLoop(Generic[B]):
    """Trains one network, see `TorchRun.train`."""

    def __init__(
        self,
        context: FitContext,
        network: torch.nn.Module,
        epoch: Callable[[np.random.Generator], Iterable[B]],
        loss: Callable[[B], torch.Tensor],
        validation: Validation | None,
        optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer] | None,
        rate: Callable[[int], float] | None,
    ) -> None:
        self._context = context
        self._network = network
        self._epoch = epoch
        self._loss = loss
        self._validation = validation
        self._optimizer = self._adam(network) if optimizer is None else optimizer(network)
        self._base_rates = [group["lr"] for group in self._optimizer.param_groups]
        self._rate = rate
        measured = (None, True) if validation is None else (validation.measure, validation.larger_is_better)
        self._curve = LearningCurve(*measured)
        self._best: dict[str, torch.Tensor] = {}
        self._n_steps = 0
        self._step_of_epoch = 0
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=context.device)
        self._generator_state: Any = None  # of PyTorch, to continue with after a checkpoint

    def run(self) -> LearningCurve:
        """Train to the end, from the checkpoint if there is one."""
        self._resume()
        config, progress = self._context.config, self._context.progress
        progress("fit", len(self._curve.losses), config.n_epochs)
        while not self._is_done():
            self._train_epoch()
            self._end_epoch()
            # An early stop counts as all epochs.
            progress("fit", config.n_epochs if self._is_done() else len(self._curve.losses), config.n_epochs)
        self._network.load_state_dict(self._best)
        self._network.eval()
        return self._curve

    def _is_done(self) -> bool:
        config = self._context.config
        return len(self._curve.losses) >= config.n_epochs or self._curve.has_stalled(config.patience)

    def _train_epoch(self) -> None:
        generator = self._context.epoch_generator(len(self._curve.losses))
        batches = iter(self._epoch(generator))
        if self._step_of_epoch:
            # Drawn again and not used, so that the generator of the batches is where it was.
            next(islice(batches, self._step_of_epoch - 1, self._step_of_epoch), None)
        if self._generator_state is not None:
            _set_generators(self._generator_state)
            self._generator_state = None
        self._network.train()
        for batch in batches:
            self._step(moved(batch, self._context.device))
            if self._context.checkpoint.is_due:
                self._keep()

    def _step(self, batch: B) -> None:
        if self._rate is not None:
            factor = self._rate(self._n_steps)
            for group, base in zip(self._optimizer.param_groups, self._base_rates, strict=True):
                group["lr"] = base * factor
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._context.device.type, dtype=torch.bfloat16, enabled=self._context.mixes_precision):
            loss = self._loss(batch)
        loss.backward()
        if clip_norm := self._context.config.clip_norm:
            torch.nn.utils.clip_grad_norm_(self._network.parameters(), clip_norm)
        self._optimizer.step()
        self._loss_sum += loss.detach()
        self._n_steps += 1
        self._step_of_epoch += 1

    def _end_epoch(self) -> None:
        self._require_finite("loss", float(self._loss_sum))
        self._curve.losses.append(float(self._loss_sum) / max(self._step_of_epoch, 1))
        self._loss_sum.zero_()
        self._step_of_epoch = 0
        if self._validation is not None:
            self._network.eval()
            with torch.no_grad():
                value = float(self._validation.value())
            self._require_finite(self._validation.measure, value)
            self._curve.values.append(value)
        if self._curve.latest_is_best:
            self._best = {name: tensor.detach().clone() for name, tensor in self._network.state_dict().items()}
        if self._context.checkpoint.is_due:
            self._keep()

    def _require_finite(self, name: str, value: float) -> None:
        """Refuse a number that is not finite.

        Raises:
            TrainingDiverged: It is not.
        """
        if not np.isfinite(value):
            context = self._context
            raise TrainingDiverged(
                f"{context.algorithm} diverged in epoch {len(self._curve.losses) + 1} with lr={context.config.lr:g}: "
                f"its {name} is not finite; lower lr or set clip_norm."
            )

    def _adam(self, network: torch.nn.Module) -> torch.optim.Optimizer:
        config = self._context.config
        kind = torch.optim.AdamW if config.weight_decay else torch.optim.Adam
        return kind(network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)

    def _keep(self) -> None:
        """Write the state of the loop to the checkpoint, unless it is broken and only its epoch's end is missing."""
        if not bool(torch.isfinite(self._loss_sum)):
            return
        state = {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best": self._best,
            "losses": self._curve.losses,
            "values": self._curve.values,
            "n_steps": self._n_steps,
            "step_of_epoch": self._step_of_epoch,
            "loss_sum": self._loss_sum,
            "generators": _generators(),
        }

        def content(file: BinaryIO) -> None:
            torch.save(state, file)

        self._context.checkpoint.write(content)

    def _resume(self) -> None:
        """Continue from the checkpoint; one that cannot be read is removed."""
        content = self._context.checkpoint.read()
        if content is None:
            return
        try:
            state = torch.load(io.BytesIO(content), map_location=self._context.device, weights_only=True)
        except Exception:  # noqa: BLE001  # a broken file raises errors of many kinds, and costs only time
            self._context.checkpoint.remove()
            return
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best = state["best"]
        self._curve.losses, self._curve.values = state["losses"], state["values"]
        self._n_steps, self._step_of_epoch = state["n_steps"], state["step_of_epoch"]
        self._loss_sum = state["loss_sum"]
        self._generator_state = state["generators"].cpu() if self._step_of_epoch else None


def moved(batch: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on a device; tuples, named tuples, lists and dicts keep their form."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: moved(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(value, device) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(moved(value, device) for value in batch)
    return batch


def _generators() -> torch.Tensor:
    """Return the state of PyTorch's generator, and of the GPU's if there is one, in one row."""
    parts = [torch.get_rng_state()]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_rng_state())
    return torch.cat(parts)


def _set_generators(state: torch.Tensor) -> None:
    own = torch.get_rng_state().numel()
    torch.set_rng_state(state[:own])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(state[own:])
