"""Who is erased from generated lists: some users by name, or those whom the list of erased users has."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from service.models.files.erased_users import CLOCK_SKEW_S, ErasedUsers, rows_of
from service.models.vocabulary import Vocabulary
from telemetry.pseudonym import Pseudonymiser

Chosen = Callable[[Sequence[str], str], set[str]]
"""Returns which of some users, as lists name them, are erased from lists of a time, RFC 3339."""


def named(names: Collection[str], pseudonyms: Pseudonymiser) -> Chosen:
    """Choose users by their ids in telemetry, as a set, from lists of any time."""

    def choose(user_ids: Sequence[str], _as_of: str) -> set[str]:
        return {user_ids[row] for row in rows_of(Vocabulary(user_ids), names, pseudonyms)}

    return choose


def named_until(listed_s: Mapping[str, int | None], pseudonyms: Pseudonymiser) -> Chosen:
    """Choose users by their ids in telemetry, from lists of a time until they were listed as erased.

    Clocks of other machines may be ahead: the time of a list counts with `CLOCK_SKEW_S`.

    Args:
        listed_s: By user id: that time, in seconds since 1970, rounded down; None for lists of any time.
        pseudonyms: Map users of lists to those of telemetry.
    """

    def choose(user_ids: Sequence[str], as_of: str) -> set[str]:
        as_of_s = _second_of(as_of)
        names = {name for name, time_s in listed_s.items() if time_s is None or time_s + CLOCK_SKEW_S >= as_of_s}
        return {user_ids[row] for row in rows_of(Vocabulary(user_ids), names, pseudonyms)}

    return choose


def listed(erased: ErasedUsers, pseudonyms: Pseudonymiser) -> Chosen:
    """Choose the listed users from lists of a time before the erase. Later lists are kept: their users came back."""

    def choose(user_ids: Sequence[str], as_of: str) -> set[str]:
        as_of_s = _second_of(as_of)
        rows = erased.erased_rows(Vocabulary(user_ids), pseudonyms)
        return {user_ids[row] for row, at in rows.items() if at.listed_s >= as_of_s}

    return choose


def _second_of(as_of: str) -> int:
    # The list has whole seconds, rounded down.
    return int(datetime.fromisoformat(as_of).timestamp())
