"""Parts that the exported modules share: a perceptron, and outputs as factors and a bias."""

import torch
from torch import nn

from service.models.networks.network import Tensors
from service.models.networks.tower_outputs import TowerOutputs


class Layers(nn.Module):
    """A perceptron of the weights `weight_0`, `bias_0` and so on, as `service.models.networks.perceptron` has it."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self.n_layers = sum(name.startswith("weight_") for name in tensors)
        for number in range(self.n_layers):
            for name in (f"weight_{number}", f"bias_{number}"):
                self.register_buffer(name, torch.from_numpy(tensors[name].copy()))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the outputs of inputs."""
        for number in range(self.n_layers):
            values = values @ getattr(self, f"weight_{number}") + getattr(self, f"bias_{number}")
            if number < self.n_layers - 1:
                values = torch.relu(values)
        return values


def split(outputs: torch.Tensor, how: TowerOutputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors, (k,), and the bias of a tower's outputs, (k,) or (k + 1,)."""
    factors = outputs[: how.n_factors]
    if how.normalise:
        length = torch.sqrt((factors * factors).sum())
        factors = factors / torch.where(length == 0, torch.ones_like(length), length)
    bias = outputs[how.n_factors] * how.bias_scale if how.has_bias else torch.zeros((), dtype=outputs.dtype)
    return factors * how.scale, bias
