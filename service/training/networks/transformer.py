"""A causal transformer over histories, in PyTorch; `service.models.networks.sequence` evaluates the same in numpy.

Invariant: the names and the shapes of its parameters, but the items', are those of the tensors of a `SequenceTower`.
"""

import torch
from torch import nn
from torch.nn import functional

from service.training.networks.dropout import Dropout

# Added to the attention to what comes later; finite, so that no row of a padded batch becomes NaN.
_NEVER = -1e9


class Block(nn.Module):
    """Attention and a feed-forward layer, see `service.models.networks.transformer_block`.

    Args:
        width: d.
        n_heads: The heads of the attention.
        window: The most positions.
        inner: The width within the feed-forward layer.
        dropout: The share of what is dropped of the results of both layers.
        is_gated: Whether the block is gated, as in LiGR.
    """

    def __init__(self, width: int, n_heads: int, window: int, inner: int, dropout: Dropout, *, is_gated: bool) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.is_gated = is_gated
        self.dropout = dropout
        self.norm_attention = nn.LayerNorm(width)
        self.norm_forward = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 2 * inner if is_gated else inner)
        self.down = nn.Linear(inner, width)
        if is_gated:
            self.gate_attention = nn.Linear(width, width)
            self.gate_forward = nn.Linear(width, width)
        self.distance = nn.Parameter(torch.zeros(n_heads, window))

    def forward(self, states: torch.Tensor, distances: torch.Tensor, later: torch.Tensor) -> torch.Tensor:
        """Compute all positions.

        Args:
            states: Float32 (b, t, width).
            distances: Int64 (t, t), how many positions a key is before a query; 0 for what comes later.
            later: Float32 (t, t), what is added to the attention: 0, or far below it for what comes later.

        Returns:
            Float32 (b, t, width).
        """
        b, t, width = states.shape
        heads = self.query_key_value(self.norm_attention(states)).view(b, t, 3, self.n_heads, -1)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        scores = torch.matmul(queries * queries.shape[-1] ** -0.5, keys.transpose(-1, -2))
        attention = torch.softmax(scores.float() + (self.distance[:, distances] + later), dim=-1)
        read = torch.matmul(attention.to(values.dtype), values).transpose(1, 2).reshape(b, t, width)
        added = self.dropout(self.out(read))
        states = states + (added * torch.sigmoid(self.gate_attention(states)) if self.is_gated else added)
        inner = self.up(self.norm_forward(states))
        if self.is_gated:
            swish, linear = inner.chunk(2, dim=-1)
            added = self.dropout(self.down(self.dropout(functional.silu(swish) * linear)))
            return states + added * torch.sigmoid(self.gate_forward(states))
        return states + self.dropout(self.down(self.dropout(functional.relu(inner))))


class Transformer(nn.Module):
    """Users after each of their interactions, in the space of the items.

    Args:
        n_items: Size of the catalogue; row `n_items` of the table is padding.
        width: d.
        n_blocks: The blocks.
        n_heads: The heads of each.
        window: The most positions.
        dropout: The share of what is dropped, of the inputs, too.
        is_gated: Whether the blocks are gated.
    """

    def __init__(
        self, n_items: int, width: int, n_blocks: int, n_heads: int, window: int, dropout: float, *, is_gated: bool
    ) -> None:
        super().__init__()
        self.window = window
        self.dropout = Dropout(dropout)
        self.items = nn.Embedding(n_items + 1, width, padding_idx=n_items)
        inner = 2 * width if is_gated else 4 * width
        self.blocks = nn.ModuleList(
            Block(width, n_heads, window, inner, self.dropout, is_gated=is_gated) for _ in range(n_blocks)
        )
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.items.weight[:n_items], std=0.02)

    @property
    def table(self) -> torch.Tensor:
        """The items, float32 (n_items, width)."""
        return self.items.weight[:-1]

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Compute users: float32 (b, t, width), from item rows, int64 (b, t), oldest first, padded at the end."""
        places = torch.arange(items.shape[1], device=items.device)
        distances = places[:, None] - places
        later = torch.where(distances < 0, _NEVER, 0.0)
        states = self.dropout(self.items(items))
        for block in self.blocks:
            states = block(states, distances.clamp_min(0), later)
        return self.norm(states)
