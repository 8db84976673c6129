"""Leaves out of the data what erased users did before they were erased (pure).

Invariant: what is left of an erased user is younger than the request; a user of whom nothing is left is not in the
vocabulary. Without times everything may be old, so nothing of them is left.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from service.errors import DataError
from service.models.vocabulary import Vocabulary
from service.training.interactions import Interactions


def without_erased(data: Interactions, erased: Mapping[int, int]) -> Interactions:
    """Return the interactions without those of erased users.

    Args:
        data: All of them.
        erased: By user row: when that user was erased, in seconds since 1970.

    Returns:
        The rest, with a note in its report; `data` itself where nobody in it is erased.

    Raises:
        DataError: Nothing is left.
    """
    if not erased:
        return data
    rows = np.fromiter(erased, np.int64, len(erased))
    times_s = np.zeros(len(data.users), dtype=np.int64)
    listed = np.zeros(len(data.users), dtype=bool)
    times_s[rows] = np.fromiter(erased.values(), np.int64, len(erased))
    listed[rows] = True
    old = listed[data.user_rows]
    if data.timestamps is not None:
        old &= data.timestamps <= times_s[data.user_rows]
    left = data.take(np.flatnonzero(~old))
    if not len(left):
        raise DataError(f"{data.report.source} holds nothing but what erased users did")
    present = np.zeros(len(data.users), dtype=bool)
    present[left.user_rows] = True
    present[~listed] = True
    new_rows = np.cumsum(present, dtype=np.int32) - np.int32(1)
    note = f"{int(old.sum()):,} ratings of users erased since ({len(rows):,} of them) were left out."
    return replace(
        left,
        users=Vocabulary(id_ for id_, kept in zip(data.users.id_of, present.tolist(), strict=True) if kept),
        user_rows=new_rows[left.user_rows],
        report=replace(data.report, notes=(*data.report.notes, note)),
    )
