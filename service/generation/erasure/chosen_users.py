"""Who is erased from generated lists: some users by name, or those whom the list of erased users has."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from service.models.files.erased_users import ErasedUsers, rows_of
from service.models.vocabulary import Vocabulary
from telemetry.pseudonym import Pseudonymiser

Chosen = Callable[[Sequence[str], str], set[str]]
"""Returns which of some users, as lists name them, are erased from lists of a time, RFC 3339."""


def named(names: Collection[str], pseudonyms: Pseudonymiser) -> Chosen:
    """Choose users by their ids in telemetry, as a set, from lists of any time."""

    def choose(user_ids: Sequence[str], _as_of: str) -> set[str]:
        return {user_ids[row] for row in rows_of(Vocabulary(user_ids), names, pseudonyms)}

    return choose


def listed(erased: ErasedUsers, pseudonyms: Pseudonymiser) -> Chosen:
    """Choose the listed users from lists of a time before the erase. Later lists are kept: their users came back."""

    def choose(user_ids: Sequence[str], as_of: str) -> set[str]:
        # The list has whole seconds, rounded down.
        as_of_s = int(datetime.fromisoformat(as_of).timestamp())
        rows = erased.erased_rows(Vocabulary(user_ids), pseudonyms)
        return {user_ids[row] for row, erased_s in rows.items() if erased_s >= as_of_s}

    return choose
