"""What looks wrong about rows that could be read (pure)."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

import numpy as np

from service.training.data.field_values import printable
from service.training.data.formats.lines import NOT_UTF8
from service.training.data.rows import SourceRows
from service.training.interactions import Float32, Int32

# 1971-01-01: a real interaction of 1970 is unlikely, a number of days or minutes read as seconds is not.
_PLAUSIBLE_S: Final = 31_536_000
# How languages and databases write a missing value.
_MISSING: Final = frozenset(
    written
    for word in ("nan", "none", "null", "(null)", "na", "n/a", "#n/a", "<na>", "nil", "undefined")
    for written in (word, word.upper(), word.capitalize())
) | {"NaN"}
# How a spreadsheet shows, and saves, a long number: the digits that are not there are lost.
_SCIENTIFIC: Final = re.compile(r"[0-9](?:[.,][0-9]+)?[Ee]\+[0-9]+")
_QUOTES: Final = ("'", '"')
# Of so many rows it is no accident that no two have the same user.
_MANY_ROWS: Final = 20
_MANY_ZEROS: Final = 0.2


def suspicions(rows: SourceRows) -> list[str]:
    """Say what looks wrong about rows that could be read.

    Args:
        rows: The good rows of all files.

    Returns:
        One sentence each.
    """
    found = doubtful_ids(rows)
    if any(example.endswith(NOT_UTF8) for example in rows.bad_examples):
        found.append("Some rows are not UTF-8: if the file is in another encoding, name it, as in --encoding latin-1.")
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
        elif least == 0 and _zeros_stand_apart(rows.ratings):
            found.append(
                f"{np.count_nonzero(rows.ratings == 0):,} of {rows.ratings.size:,} ratings are 0 and none lies between "
                f"0 and 1, as where 0 means 'not rated': leave those rows out if it does; {advice}."
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


def doubtful_ids(rows: SourceRows) -> list[str]:
    """Say what looks wrong about the ids of rows that could be read.

    Args:
        rows: The good rows.

    Returns:
        One sentence each.
    """
    columns = (("user", rows.user_codes, rows.user_ids), ("item", rows.item_codes, rows.item_ids))
    found = [sentence for what, codes, ids in columns for sentence in _of_column(what, codes, ids)]
    if rows.user_codes.size >= _MANY_ROWS:
        found += [
            f"All rows are of one {what}, so there is nothing to compare it with: --columns {what}=NAME takes another "
            "column."
            for what, codes, _ in columns
            if int(codes.min()) == int(codes.max())
        ]
        for (what, codes, _), (_, others, _) in (columns, columns[::-1]):
            if int(np.bincount(codes).max()) == 1 and int(others.min()) != int(others.max()):
                found.append(
                    f"Every row has its own {what}, so nothing can be learnt about any of them: the {what} column "
                    f"probably holds a number of the row or of an order. --columns {what}=NAME takes another."
                )
    return found


def _of_column(what: str, codes: Int32, ids: Sequence[str]) -> list[str]:
    found = []
    for id_ in sorted(_MISSING.intersection(ids)):
        n_rows = int(np.count_nonzero(codes == ids.index(id_)))
        if n_rows:
            found.append(
                f"{n_rows:,} of the rows have the {what} id {id_!r}, which looks like a missing value and counts as "
                f"one {what}: leave those rows out if it is one."
            )
    if any(id_.endswith(".0") for id_ in ids):
        known = set(ids)
        twice = [id_ for id_ in ids if id_.endswith(".0") and id_[:-2] in known]
        if twice:
            found.append(
                f"{len(twice):,} {what} ids are written in two ways, such as {printable(twice[0][:-2])} and "
                f"{printable(twice[0])}, and count as two {what}s each: write them in one way."
            )
    scientific = [id_ for id_ in ids if "+" in id_ and _SCIENTIFIC.fullmatch(id_)]
    if scientific:
        found.append(
            f"{len(scientific):,} {what} ids look like {scientific[0]}, as spreadsheets write long numbers: different "
            "ids may have become one. Export that column as text."
        )
    quoted = [id_ for id_ in ids if id_[0] == id_[-1] and id_[0] in _QUOTES and len(id_) > 2]
    if quoted:
        found.append(
            f"{len(quoted):,} {what} ids stand in quotes, such as {printable(quoted[0])}, which count as part of them: "
            'in a table quotes are double ones, ", next to the separators without blanks between.'
        )
    composed: dict[str, str] = {}
    for id_ in ids:
        if not id_.isascii() and composed.setdefault(unicodedata.normalize("NFC", id_), id_) != id_:
            found.append(
                f"The {what} id {printable(id_)!r} is there in two forms of Unicode, which look alike and count as two "
                f"{what}s: normalise the ids, to NFC for example."
            )
            break
    return found


def _zeros_stand_apart(ratings: Float32) -> bool:
    """Tell whether many ratings are 0 and all others at least 1."""
    is_zero = ratings == 0
    return bool(is_zero.mean() >= _MANY_ZEROS and ratings[~is_zero].min() >= 1)
