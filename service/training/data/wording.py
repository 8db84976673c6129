"""What a person is told about the columns of their data, and what looks wrong in it (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from service.training.data.values import shown

if TYPE_CHECKING:
    from service.training.data.layout import Columns
    from service.training.data.rows import Rows

_SHOWN_COLUMNS: Final = 12
# Columns that say what kind of event a row is: by these names web shops and trackers export them.
# fmt: off
_EVENT_TYPES: Final = frozenset((
    "event", "eventtype", "eventname", "action", "actiontype", "activity", "behavior", "behaviour", "behaviortype",
    "behaviourtype", "interaction", "interactiontype",
))
# fmt: on
# 1971-01-01: a real interaction of 1970 is unlikely, a number of days or minutes read as seconds is not.
_PLAUSIBLE_S: Final = 31_536_000


def columns_taken(name: str, columns: Columns, names: Sequence[str] | None, n_columns: int) -> list[str]:
    """Say which columns were taken for what, and which were left aside.

    Args:
        name: the file, as it may be printed.
        columns: the positions that were taken.
        names: the names of all columns; None where the file has none.
        n_columns: how many columns there are.

    Returns:
        One sentence each.
    """
    taken = {role: place for role, place in columns._asdict().items() if place is not None}

    def column(place: int) -> str:
        return f"column {place + 1}" if names is None or place >= len(names) else shown(names[place].strip())

    missing = [role for role in ("rating", "timestamp") if role not in taken]
    parts = [f"{name}: {', '.join(f'{role} = {column(place)}' for role, place in taken.items())}"]
    if missing:
        parts.append(f"no {' and no '.join(missing)}")
    ignored = [place for place in range(n_columns) if place not in taken.values()]
    if ignored:
        listed = ", ".join(column(place) for place in ignored[:_SHOWN_COLUMNS])
        more = f" and {len(ignored) - _SHOWN_COLUMNS} more" if len(ignored) > _SHOWN_COLUMNS else ""
        parts.append(f"ignored: {listed}{more}")
    sentences = [f"{'; '.join(parts)}."]
    if names is not None:
        sentences += [
            f"{name}: the column {column(place)} looks like a type of event and is ignored, so rows of every type "
            "count alike; keep the rows that are meant, or give each type a value in a rating column."
            for place in ignored
            if place < len(names) and "".join(c for c in names[place].lower() if c.isalnum()) in _EVENT_TYPES
        ]
    return sentences


def suspicions(rows: Rows) -> list[str]:
    """Say what looks wrong about rows that could be read.

    Args:
        rows: the good rows of all files.

    Returns:
        One sentence each.
    """
    found: list[str] = []
    if rows.ratings.size < 2:
        return found
    advice = "--columns rating= reads the rows as interactions without ratings"
    if rows.has_ratings:
        least, most = float(rows.ratings.min()), float(rows.ratings.max())
        if least == most:
            found.append(f"All ratings are {least:g}, so there is nothing to tell apart: {advice}.")
        elif (least, most) == (0.0, 1.0) and bool(np.isin(rows.ratings, (0.0, 1.0)).all()):
            found.append(
                "All ratings are 0 or 1, as in a column of yes and no: they are taken as a scale from 0 to 1. If 0 "
                f"means only that nothing happened, leave those rows out; {advice}."
            )
    if rows.timestamps is not None:
        first_s, last_s = int(rows.timestamps.min()), int(rows.timestamps.max())
        if first_s >= 0 and last_s < _PLAUSIBLE_S:
            found.append(
                "All times lie in 1970, so the time column probably holds something else than unix time; a date such "
                "as 20210102 has to be written 2021-01-02. --columns time= leaves the times out."
            )
        elif first_s == last_s:
            found.append("All times are the same, so nothing is known about the order of the rows.")
    return found
