"""Windows of histories as batches for a transformer: items, and at each position the item that comes next.

Invariant: an epoch has the latest window of every user, and of longer histories further windows at random places, so
that it has about as many positions as there are interactions. Windows of a batch have nearly the same length.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from service.models.history.user_history import DISMISS
from service.training.assembly import event_types, time_ranks
from service.training.deep.group.share import Rows, Share
from service.training.interactions import Int64, Interactions

# The target of a position that has none.
NONE = -1
# Windows whose lengths differ by less may change places in the order of lengths.
_JITTER = 8.0


class Histories(NamedTuple):
    """The interactions of all users, user after user, oldest first, without dismissals.

    Attributes:
        starts: Int64 (n_users,), where each user begins in `items`.
        stops: Int64 (n_users,), where each ends.
        items: Int64 (n,), item rows.
        n_items: Size of the catalogue.
    """

    starts: Int64
    stops: Int64
    items: Int64
    n_items: int

    @classmethod
    def of(cls, data: Interactions) -> "Histories":
        """Bring interactions into order."""
        kept = np.flatnonzero(event_types(data) != DISMISS)
        order = kept[np.lexsort((time_ranks(data)[kept], data.user_rows[kept]))]
        stops = np.cumsum(np.bincount(data.user_rows[kept], minlength=len(data.users)))
        starts = np.concatenate([[0], stops[:-1]])
        return cls(starts, stops, data.item_rows[order].astype(np.int64), len(data.items))

    @property
    def lengths(self) -> Int64:
        """The number of interactions of each user, int64 (n_users,)."""
        return self.stops - self.starts

    def latest(self, users: Int64, window: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the latest windows of users with interactions.

        Returns:
            Int64 (b, t), the items, padded at the end by `n_items`; int64 (b,), the place of the last one.
        """
        sizes = np.minimum(self.lengths[users], window)
        places = (self.stops[users] - sizes)[:, np.newaxis] + np.arange(sizes.max())
        known = np.arange(places.shape[1]) < sizes[:, np.newaxis]
        items = np.where(known, self.items[np.where(known, places, 0)], self.n_items)
        return torch.from_numpy(items), torch.from_numpy(sizes - 1)

    def drafts(self, window: int, n_positions: int, rng: np.random.Generator) -> Iterator["Draft"]:
        """Yield the windows of one epoch, by batches.

        Args:
            window: The most positions of a window.
            n_positions: The positions of a batch, padding included.
            rng: Draws places, and the order of the batches.
        """
        lengths = self.lengths
        users = np.flatnonzero(lengths > 1)
        sizes = np.minimum(lengths[users] - 1, window)
        earlier = lengths[users] - 1 - sizes
        n_more = np.floor(earlier / window + rng.random(users.size)).astype(np.int64)
        begins = np.concatenate(
            [
                self.starts[users] + earlier,
                np.repeat(self.starts[users], n_more)
                + np.floor(np.repeat(earlier + 1, n_more) * rng.random(int(n_more.sum()))).astype(np.int64),
            ]
        )
        sizes = np.concatenate([sizes, np.repeat(sizes, n_more)])
        order = np.argsort(sizes + _JITTER * rng.random(sizes.size), kind="stable")
        batches = list(_cut(sizes[order], n_positions))
        for number in rng.permutation(len(batches)).tolist():
            own = order[slice(*batches[number])]
            yield Draft(begins[own], sizes[own])

    def batch(self, draft: "Draft", share: Share) -> "Batch":
        """Return a share of the windows of a batch, padded to the longest of all."""
        part = share.rows(draft.sizes.size)
        places = draft.begins[part.places, np.newaxis] + np.arange(draft.sizes.max())
        known = np.arange(places.shape[1]) < draft.sizes[part.places, np.newaxis]
        places[~known] = 0
        items = np.where(known, self.items[places], self.n_items)
        targets = np.where(known, self.items[places + 1], NONE)
        n_terms = int(draft.sizes.sum()) * part.n_copies
        return Batch(torch.from_numpy(items), torch.from_numpy(targets), part, n_terms)


class Draft(NamedTuple):
    """The windows of a batch.

    Attributes:
        begins: Int64 (b,), where each begins in `Histories.items`.
        sizes: Int64 (b,), the positions of each.
    """

    begins: Int64
    sizes: Int64


class Batch(NamedTuple):
    """Windows of b users.

    Attributes:
        items: Int64 (b, t), item rows, padded at the end by `n_items`.
        targets: Int64 (b, t), the item that comes next, `NONE` where there is padding.
        rows: Which windows of a batch that processes share these are.
        n_terms: The positions of all parts of the batch.
    """

    items: torch.Tensor
    targets: torch.Tensor
    rows: Rows
    n_terms: int


def _cut(sizes: Int64, n_positions: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of windows, in nearly ascending order of their sizes, of at most so many positions each."""
    start = 0
    while start < sizes.size:
        stop = start + max(1, n_positions // int(sizes[start]))
        longest = int(sizes[start:stop].max())
        stop = min(start + max(1, n_positions // longest), sizes.size)
        yield start, stop
        start = stop
