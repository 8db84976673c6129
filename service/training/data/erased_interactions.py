"""Leaves interactions of erased users out of training data (pure).

Invariant: the remaining interactions of an erased user are younger than the erase request; a user without any is not in
the vocabulary. Data without times may all be older, so none of the user's remain; nor do attributes, which have none.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from service.errors import DataError
from service.models.vocabulary import Vocabulary
from service.training.interactions import Interactions, UserCatalogue


def without_erased(data: Interactions, requested_s: Mapping[int, int]) -> Interactions:
    """Return the interactions without those of erased users, with a note in the report; `data` if there are none.

    Args:
        requested_s: By user row: when the erasure was requested, in seconds since 1970, rounded down.

    Raises:
        DataError: Nothing is left.
    """
    if not requested_s:
        return data
    rows = np.fromiter(requested_s, np.int64, len(requested_s))
    times_s = np.zeros(len(data.users), dtype=np.int64)
    listed = np.zeros(len(data.users), dtype=bool)
    times_s[rows] = np.fromiter(requested_s.values(), np.int64, len(requested_s))
    listed[rows] = True
    old = listed[data.user_rows]
    if data.timestamps is not None:
        old &= data.timestamps <= times_s[data.user_rows]
    left = data.take(np.flatnonzero(~old))
    if not len(left):
        raise DataError(f"{data.report.source} holds no interactions but those of erased users.")
    present = np.zeros(len(data.users), dtype=bool)
    present[left.user_rows] = True
    present[~listed] = True
    new_rows = np.cumsum(present, dtype=np.int32) - np.int32(1)
    erased = {data.users.id_of[row] for row in rows.tolist()}
    attributes = {id_: found for id_, found in data.user_catalogue.attributes.items() if id_ not in erased}
    note = f"{int(old.sum()):,} ratings of {len(rows):,} erased users were left out."
    return replace(
        left,
        users=Vocabulary(id_ for id_, kept in zip(data.users.id_of, present.tolist(), strict=True) if kept),
        user_rows=new_rows[left.user_rows],
        user_catalogue=UserCatalogue(attributes),
        report=replace(data.report, notes=(*data.report.notes, note)),
    )
