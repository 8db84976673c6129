"""What lists are made from in bulk: a model, the items that may be listed, and how the users of a list are computed."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from service.generation.lists.item_table import ItemTable
from service.generation.lists.user_part import is_separable, without_users
from service.lists.candidates import AnyRows, Candidates
from service.lists.filters.masks import FilterMask
from service.lists.list_request import ListRequest
from service.models.ranking.reranking import whole_blocks
from service.models.ranking.scoring import NO_ROWS
from service.models.snapshot import ModelSnapshot


@dataclass(frozen=True, eq=False)
class BulkModel:
    """One model for all shards of a generation.

    Attributes:
        snapshot: The model.
        request: What is asked for of each user: the length of a list, the filter as a text, the factor of impressions.
        hidden: Int64, the rows that are hidden or not available.
        filter: The items that match the filter; None without one.
        seen_types: The types of live events whose items are left out of lists.
    """

    snapshot: ModelSnapshot = field(repr=False)
    request: ListRequest
    hidden: NDArray[np.int64] = field(default_factory=NO_ROWS.copy, repr=False)
    filter: FilterMask | None = field(default=None, repr=False)
    seen_types: frozenset[str] = frozenset()

    @property
    def n(self) -> int:
        """The length of a list."""
        return self.request.n

    @property
    def for_workers(self) -> "BulkModel":
        """What workers need of it: without users, whose part comes with each shard, where lists do not need all."""
        if not is_separable(self.snapshot):
            return replace(self, snapshot=replace(self.snapshot, item_index=None))
        model = replace(self, snapshot=without_users(self.snapshot))
        # Computed once and shared: workers map the table.
        _ = model.items
        return model

    @property
    def n_retrieved(self) -> int:
        """How many of a user's best items decide a list."""
        ranker = self.snapshot.ranker
        return self.n if ranker is None else whole_blocks(self.n, ranker.n_candidates)

    @cached_property
    def items(self) -> ItemTable:
        """The items that lists may contain, of a model with factors."""
        if not self.hidden.size and self.filter is None:
            return ItemTable.of(self.snapshot, None)
        allowed = np.ones(len(self.snapshot.items), bool) if self.filter is None else self.filter.mask.copy()
        allowed[self.hidden] = False
        return ItemTable.of(self.snapshot, allowed)

    def candidates(self, seen: AnyRows) -> Candidates:
        """Return the items that the list of a user may contain who has seen some."""
        return Candidates(len(self.snapshot.items), filter=self.filter, hidden=self.hidden, seen=seen)
