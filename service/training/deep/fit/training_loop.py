"""The training loop of all networks: steps, validation, early stopping, checkpoints.

Invariant: the state of the loop after a step is a function of its state before the step. It consists of the network,
the optimiser, the best state, the learning curve, and the place in the epoch; generators are seeded anew for each
epoch. So a loop that continues from a checkpoint ends with the bits of one that was never interrupted.

In a training group each member runs the loop, and an `Exchange` makes its steps those of the group. The first member
validates and keeps checkpoints.
"""

import io
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, BinaryIO, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from service.errors import TrainingDiverged
from service.training.deep.fit.context import FitContext
from service.training.deep.fit.learning_curve import LearningCurve
from service.training.deep.fit.objective import Objective
from service.training.deep.group.exchange import Exchange, NoExchange, steps_of
from service.training.deep.group.gradient_sum import GradientSum, take_of_first
from service.training.deep.group.parameter_mean import ParameterMean
from service.training.deep.group.share import Share

D = TypeVar("D")
B = TypeVar("B")


class Validation(NamedTuple):
    """What decides which epoch is kept.

    Attributes:
        measure: Its name, such as "ndcg@10"; also in the learning curve.
        value: Called after each epoch, with the network in evaluation mode and without gradients.
        larger_is_better: False for an error.
        part: In a group, called in place of `value` with each member's share of what is measured; the parts add up to
            the value. None if the first member measures all.
    """

    measure: str
    value: Callable[[], float]
    larger_is_better: bool = True
    part: Callable[[Share], float] | None = None


class TrainingLoop(Generic[D, B]):
    """Trains one network, see `TorchRun.train`."""

    def __init__(
        self,
        context: FitContext,
        network: torch.nn.Module,
        objective: Objective[D, B],
        validation: Validation | None,
        optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer] | None,
        rate: Callable[[int], float] | None,
    ) -> None:
        self._context = context
        self._network = network
        self._objective = objective
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
        self._exchange = self._chosen_exchange()

    def run(self) -> LearningCurve:
        """Train to the end, from the checkpoint if there is one."""
        self._resume()
        if self._context.group is not None:
            # Members on processors of several kinds may have drawn numbers that differ in their last bits.
            take_of_first(self._context.group, self._network)
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
        epoch, exchange = len(self._curve.losses), self._exchange
        drafts = self._objective.drafts(self._context.epoch_generator(epoch))
        # Those before a checkpoint are drawn again and not used, so that the generator of the batches is where it was.
        steps = islice(steps_of(drafts, exchange.n_at_once), self._step_of_epoch // exchange.n_at_once, None)
        if self._generator_state is not None:
            _set_generators(self._generator_state)
            self._generator_state = None
        exchange.start(epoch, self._step_of_epoch, self._loss_sum)
        self._network.train()
        for step in steps:
            self._step(step)
            exchange.after_step(epoch, self._step_of_epoch, self._loss_sum)
            if exchange.is_synced and self._context.checkpoint.is_due:
                self._keep()
        exchange.after_epoch(self._loss_sum)

    def _step(self, drafts: Sequence[D]) -> None:
        if self._rate is not None:
            factor = self._rate(self._n_steps)
            for group, base in zip(self._optimizer.param_groups, self._base_rates, strict=True):
                group["lr"] = base * factor
        exchange, objective = self._exchange, self._objective
        batch = moved(objective.batch(exchange.own(drafts), exchange.share), self._context.device)
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._context.device.type, dtype=torch.bfloat16, enabled=self._context.mixes_precision):
            loss = objective.loss(batch) / objective.n_terms(batch)
        loss.backward()
        loss = loss.detach()
        exchange.after_gradients(loss)
        if clip_norm := self._context.config.clip_norm:
            torch.nn.utils.clip_grad_norm_(self._network.parameters(), clip_norm)
        self._optimizer.step()
        self._loss_sum += loss
        # A batch for each member counts for one each, also at the end of an epoch, where some have the same one.
        self._n_steps += exchange.n_at_once
        self._step_of_epoch += exchange.n_at_once

    def _end_epoch(self) -> None:
        self._require_finite("loss", float(self._loss_sum))
        self._curve.losses.append(float(self._loss_sum) / max(self._step_of_epoch, 1))
        self._loss_sum.zero_()
        self._step_of_epoch = 0
        if self._validation is not None:
            self._network.eval()
            with torch.no_grad():
                value = self._validated(self._validation)
            self._require_finite(self._validation.measure, value)
            self._curve.values.append(value)
        if self._curve.latest_is_best:
            self._best = {name: tensor.detach().clone() for name, tensor in self._network.state_dict().items()}
        if self._context.checkpoint.is_due:
            self._keep()

    def _validated(self, validation: Validation) -> float:
        """Return the value of the validation, the same in all members of a group."""
        group = self._context.group
        if group is None:
            return float(validation.value())
        if validation.part is None:
            return group.number_of_first(float(validation.value()) if group.is_first else 0.0)
        total = torch.tensor([validation.part(group.share)], dtype=torch.float64)
        group.add(total)
        return float(total)

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

    def _chosen_exchange(self) -> Exchange:
        group, every = self._context.group, self._context.config.average_every
        if group is None or group.share.size == 1:
            return NoExchange()
        if every:
            return ParameterMean(group, self._network, self._optimizer, every, self._context.seed)
        return GradientSum(group, self._network)

    def _adam(self, network: torch.nn.Module) -> torch.optim.Optimizer:
        config = self._context.config
        kind = torch.optim.AdamW if config.weight_decay else torch.optim.Adam
        return kind(network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)

    def _keep(self) -> None:
        """Write the state of the loop to the checkpoint, unless the loss is not finite, which ends the fit soon."""
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
