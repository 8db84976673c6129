"""Warnings about rows that were read but look wrong, and advice for rows that could not be read (pure)."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

import numpy as np

from service.training.data.field_values import printable
from service.training.data.formats.table_lines import NOT_UTF8
from service.training.data.row_collector import SourceRows
from service.training.interactions import Float32, Int32

# Before 1971 a time is more likely a number of days or minutes that is read as seconds.
_PLAUSIBLE_S: Final = 31_536_000
# Missing values as languages and databases write them.
_MISSING: Final = frozenset(
    written
    for word in ("nan", "none", "null", "(null)", "na", "n/a", "#n/a", "<na>", "nil", "undefined")
    for written in (word, word.upper(), word.capitalize())
) | {"NaN"}
# Spreadsheets save long numbers in this form, and lose the last digits.
_SCIENTIFIC: Final = re.compile(r"[0-9](?:[.,][0-9]+)?[Ee]\+[0-9]+")
_QUOTES: Final = ("'", '"')
# From so many rows on, it is no accident that no two have the same user.
_MANY_ROWS: Final = 20
_MANY_ZEROS_SHARE: Final = 0.2


def advice_for_bad_rows(examples: Sequence[str]) -> str:
    """Return the option that would read a file with mostly bad rows, if the examples have one common reason.

    An example is "file:number: reason"; the advice begins with its separator, and is empty if there is none.
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


def row_warnings(rows: SourceRows) -> list[str]:
    """Return the warnings about the rows of all files, one sentence each."""
    warnings = id_warnings(rows)
    if any(example.endswith(NOT_UTF8) for example in rows.bad_examples):
        warnings.append(
            "Some rows are not UTF-8: if the file is in another encoding, name it, as in --encoding latin-1."
        )
    if rows.ratings.size < 2:
        return warnings
    advice = "--columns rating= reads the rows as interactions without ratings"
    if rows.has_ratings:
        least, most = float(rows.ratings.min()), float(rows.ratings.max())
        if least == most:
            warnings.append(f"All ratings are {least:g}, so they distinguish nothing: {advice}.")
        elif (least, most) == (0.0, 1.0) and bool(np.isin(rows.ratings, (0.0, 1.0)).all()):
            warnings.append(
                "All ratings are 0 or 1, as in a column of yes and no: they are a scale from 0 to 1. If 0 means only "
                f"that nothing happened, leave those rows out; {advice}."
            )
        elif least == 0 and _zeros_stand_apart(rows.ratings):
            warnings.append(
                f"{np.count_nonzero(rows.ratings == 0):,} of {rows.ratings.size:,} ratings are 0 and none lies between "
                f"0 and 1, as if 0 meant 'not rated': leave those rows out if it does; {advice}."
            )
    if rows.timestamps is not None:
        first_s, last_s = int(rows.timestamps.min()), int(rows.timestamps.max())
        if first_s >= 0 and last_s < _PLAUSIBLE_S:
            warnings.append(
                "All times lie in 1970, so the time column probably holds something else than unix time; a date such "
                "as 20210102 has to be written 2021-01-02. --columns time= leaves the times out."
            )
        elif first_s == last_s:
            warnings.append("All times are the same, so they give no order of the rows.")
    return warnings


def id_warnings(rows: SourceRows) -> list[str]:
    """Return the warnings about the ids, one sentence each."""
    columns = (("user", rows.user_codes, rows.user_ids), ("item", rows.item_codes, rows.item_ids))
    warnings = [sentence for role, codes, ids in columns for sentence in _column_warnings(role, codes, ids)]
    if rows.user_codes.size >= _MANY_ROWS:
        warnings += [
            f"All rows are of one {role}, so there is nothing to compare it with: --columns {role}=NAME names another "
            "column."
            for role, codes, _ in columns
            if int(codes.min()) == int(codes.max())
        ]
        for (role, codes, _), (_, others, _) in (columns, columns[::-1]):
            if int(np.bincount(codes).max()) == 1 and int(others.min()) != int(others.max()):
                warnings.append(
                    f"Every row has its own {role}, so nothing can be learnt about any of them: the {role} column "
                    f"probably holds a number of the row or of an order. --columns {role}=NAME names another."
                )
    return warnings


def _column_warnings(role: str, codes: Int32, ids: Sequence[str]) -> list[str]:
    warnings = []
    for id_ in sorted(_MISSING.intersection(ids)):
        n_rows = int(np.count_nonzero(codes == ids.index(id_)))
        if n_rows:
            warnings.append(
                f"{n_rows:,} of the rows have the {role} id {id_!r}, which looks like a missing value and counts as "
                f"one {role}: leave those rows out if it is one."
            )
    decimal = [id_ for id_ in ids if id_.endswith(".0")]
    if decimal:
        known = set(ids)
        twice = [id_ for id_ in decimal if id_[:-2] in known]
        if twice:
            warnings.append(
                f"{len(twice):,} {role} ids are written in two ways, such as {printable(twice[0][:-2])} and "
                f"{printable(twice[0])}, and count as two {role}s each: write them in one way."
            )
    scientific = [id_ for id_ in ids if "+" in id_ and _SCIENTIFIC.fullmatch(id_)]
    if scientific:
        warnings.append(
            f"{len(scientific):,} {role} ids look like {scientific[0]}, as spreadsheets write long numbers: different "
            "ids may have become one. Export that column as text."
        )
    quoted = [id_ for id_ in ids if id_[0] == id_[-1] and id_[0] in _QUOTES and len(id_) > 2]
    if quoted:
        warnings.append(
            f"{len(quoted):,} {role} ids stand in quotes, such as {printable(quoted[0])}, which count as part of them: "
            'in a table quotes are double ones, ", next to the separators without blanks between.'
        )
    first_of: dict[str, str] = {}
    for id_ in ids:
        if not id_.isascii() and first_of.setdefault(unicodedata.normalize("NFC", id_), id_) != id_:
            warnings.append(
                f"The {role} id {printable(id_)!r} occurs in two forms of Unicode, which look alike and count as two "
                f"{role}s: normalise the ids, to NFC for example."
            )
            break
    return warnings


def _zeros_stand_apart(ratings: Float32) -> bool:
    """Return whether many ratings are 0 and all others at least 1."""
    is_zero = ratings == 0
    return bool(is_zero.mean() >= _MANY_ZEROS_SHARE and ratings[~is_zero].min() >= 1)
