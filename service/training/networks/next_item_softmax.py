"""The loss of a sequence model: a softmax over what comes next, over all items or a sample of them.

The sample is drawn anew for each step, evenly, and shared by all of its positions, so that it costs one product of
matrices. Its logits are raised by the logarithm of the share that is not drawn, so that their sum estimates that of all
items (S. Jean, K. Cho, R. Memisevic and Y. Bengio, "On using very large target vocabulary for neural machine
translation", ACL 2015).
"""

import math

import torch
from torch.nn import functional

from service.training.deep.group.row_draws import drawing_for
from service.training.networks.item_windows import NONE, Batch
from service.training.networks.transformer import Transformer


class NextItemSoftmax:
    """The loss of a network.

    Args:
        network: On the device of the candidates.
        candidates: Int64 (m,), the items that may be negatives.
        n_negatives: How many are drawn for a step; 0 for all.
    """

    def __init__(self, network: Transformer, candidates: torch.Tensor, n_negatives: int) -> None:
        self._network = network
        self._candidates = candidates
        self._n_negatives = n_negatives if n_negatives < candidates.numel() else 0
        # Of a processor that multiplies bfloat16 several times as fast; the sums are float32.
        self._mixes = candidates.device.type == "cpu" and multiplies_bfloat16()

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the sum of the losses of the positions of a batch."""
        with (
            torch.autocast(batch.items.device.type, torch.bfloat16, enabled=self._mixes or self._is_autocast(batch)),
            drawing_for(batch.rows),
        ):
            has_target = batch.targets != NONE
            users, targets = self._network(batch.items)[has_target], batch.targets[has_target]
            if not self._n_negatives:
                logits = functional.linear(users, self._network.table).float()
                return functional.cross_entropy(logits, targets, reduction="sum")
            places = torch.randint(self._candidates.numel(), (self._n_negatives,), device=targets.device)
            negatives = self._candidates[places]
            table = self._network.table
            others = functional.linear(users, table[negatives]).float()
            others = others + math.log(self._candidates.numel() / self._n_negatives)
            others = others.masked_fill(targets[:, None] == negatives, -torch.inf)
            wanted = (users.float() * table[targets]).sum(dim=1, keepdim=True)
            logits = torch.cat([wanted, others], dim=1)
            return functional.cross_entropy(logits, torch.zeros_like(targets), reduction="sum")

    @staticmethod
    def _is_autocast(batch: Batch) -> bool:
        return bool(torch.is_autocast_enabled(batch.items.device.type))


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products in bfloat16."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
