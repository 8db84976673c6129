"""What a person is told about the columns of their data, and about rows that cannot be read (pure)."""

from collections.abc import Sequence
from typing import Final

from service.training.data.field_values import printable
from service.training.data.formats.lines import NOT_UTF8
from service.training.data.formats.table_layout import Columns

_SHOWN_COLUMNS: Final = 12
# Columns that say what kind of event a row is: by these names web shops and trackers export them.
# fmt: off
_EVENT_TYPES: Final = frozenset((
    "event", "eventtype", "eventname", "action", "actiontype", "activity", "behavior", "behaviour", "behaviortype",
    "behaviourtype", "interaction", "interactiontype", "feedbacktype",
))
# fmt: on


def describe_columns(name: str, columns: Columns, names: Sequence[str] | None, n_columns: int) -> list[str]:
    """Say which columns were taken for what, and which were left aside.

    Args:
        name: The file, as it may be printed.
        columns: The positions that were taken.
        names: The names of all columns; None where the file has none.
        n_columns: How many columns there are.

    Returns:
        One sentence each.
    """
    taken = {role: place for role, place in columns._asdict().items() if place is not None}

    def column(place: int) -> str:
        name = "" if names is None or place >= len(names) else printable(names[place].strip())
        return name or f"column {place + 1}"

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


def remedy(examples: Sequence[str]) -> str:
    """Say how to read a file most of whose rows are bad, where the first of them are bad for one reason.

    Args:
        examples: The first bad rows, "file:number: reason".

    Returns:
        A clause; nothing if there is nothing to advise.
    """
    reasons = [example.split(": ", 1)[-1] for example in examples]
    if all(reason == NOT_UTF8 for reason in reasons):
        return "; if it is in another encoding, name that, as in --encoding latin-1"
    if "--" in reasons[0]:
        return ""
    if all(reason.startswith("the timestamp ") for reason in reasons):
        return ", such as 1609556645 or 2021-01-02T03:04:05Z; --columns time= reads the rows without times"
    if all(reason.startswith("the rating ") for reason in reasons):
        return "; --columns rating= reads the rows without ratings"
    return ""
