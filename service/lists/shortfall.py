"""Why a list is shorter than requested: what ran out."""

import numpy as np

from service.api import wire
from service.lists.candidates import Candidates


def code(candidates: Candidates, n: int, place: int, *, needs_neighbour: bool = False) -> wire.ShortfallCode:
    """Return what ran out in a list of less than n items.

    It is the earlier pages if the first page of the list would have been full. Otherwise, of the causes without which
    it would have been full, it is the one that bars the most items; if there is no such cause, the one that bars the
    most of all.

    Args:
        candidates: Of the list.
        n: How many items were requested, less those with a fixed place.
        place: The place of the page's first item.
        needs_neighbour: Whether an item is a candidate only if it shares a user with another.
    """
    if candidates.n_items < n:
        return "catalogue"
    barred_by = candidates.barred_by()
    times_barred = np.zeros(candidates.n_items, dtype=np.int64)
    times_barred[candidates.placed] += 1
    for mask in barred_by.values():
        times_barred += mask
    n_left = int(np.count_nonzero(times_barred == 0))
    if place and n_left >= n:
        return "pages"
    if needs_neighbour and n_left >= n:
        return "neighbours"
    counts: dict[wire.ShortfallCode, int] = {cause: int(np.count_nonzero(mask)) for cause, mask in barred_by.items()}
    left_without = {
        cause: n_left + int(np.count_nonzero(mask & (times_barred == 1))) for cause, mask in barred_by.items()
    }
    causes: list[wire.ShortfallCode] = [cause for cause, left in left_without.items() if left >= n] or list(barred_by)
    # Of equal causes the first: what the caller asked for comes before what the user or the catalogue did.
    return max(causes, key=counts.__getitem__) if causes else "catalogue"
