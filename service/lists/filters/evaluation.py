"""Which items match a filter.

Logic has two values. A comparison of an attribute that an item lacks is false, so `!=`, `not in` and `not` are true for
that item; `== null` finds it. An attribute that no item has is missing in all of them. An attribute with several values
matches if one of them does. Strings are compared by code points, which puts dates as in 2026-11-21 in order.
"""

import operator
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import FilterRefused, did_you_mean
from service.lists.filters.columns import Column, Columns
from service.lists.filters.expression import Comparison, Expression, Membership, Not, Value, value_text

Mask = NDArray[np.bool_]

_COMPARE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def matching(expression: Expression, columns: Columns) -> Mask:
    """Return the items that match: bool (n_rows,).

    Raises:
        FilterRefused: No item has an attribute and some have one of nearly the same name, or an attribute has no value
            of the type that it is compared with.
    """
    if isinstance(expression, Not):
        mask = matching(expression.term, columns)
        return np.logical_not(mask, out=mask)
    if isinstance(expression, Comparison | Membership):
        column = _column(expression, columns)
        if column is None:
            asks_for_missing = None in (
                expression.values if isinstance(expression, Membership) else (expression.value,)
            )
            return np.full(columns.n_rows, asks_for_missing)
        if isinstance(expression, Membership):
            mask = np.zeros(columns.n_rows, dtype=bool)
            for value in expression.values:
                _mark_equal(mask, column, value, expression)
            return mask
        return _compared(column, expression, columns.n_rows)
    combine = np.logical_and if expression.word == "and" else np.logical_or
    mask = matching(expression.terms[0], columns)
    for term in expression.terms[1:]:
        combine(mask, matching(term, columns), out=mask)
    return mask


def _column(term: Comparison | Membership, columns: Columns) -> Column | None:
    """Return the attribute of a term; None if no item has it."""
    column = columns.column(term.attribute)
    if column is None and (hint := did_you_mean(term.attribute, columns.column_names)):
        raise FilterRefused(f"names {term.attribute[:64]!r}, an attribute that no item has{hint}", term.column)
    return column


def _compared(column: Column, term: Comparison, n_rows: int) -> Mask:
    mask = np.zeros(n_rows, dtype=bool)
    if term.operator == "==":
        _mark_equal(mask, column, term.value, term)
        return mask
    compare = _COMPARE[term.operator]
    _check_type(column, term.value, term)
    if isinstance(term.value, str):
        for value in column.values:
            if isinstance(value, str) and compare(value, term.value):
                mask[column.rows_of(value)] = True
    elif column.numbers is not None:
        # A comparison with NaN is false.
        np.copyto(mask, compare(column.numbers, term.value))
    return mask


def _mark_equal(mask: Mask, column: Column, value: Value, term: Comparison | Membership) -> None:
    """Mark the items with a value; None marks those without any."""
    if value is None:
        np.logical_or(mask, ~column.present, out=mask)
        return
    _check_type(column, value, term)
    if isinstance(value, str | bool):
        mask[column.rows_of(value)] = True
    elif column.numbers is not None:
        np.logical_or(mask, column.numbers == value, out=mask)


def _check_type(column: Column, value: Value, term: Comparison | Membership) -> None:
    """Refuse a constant whose type no item's value has, which cannot match and is a mistake."""
    kinds = {"strings": False, "booleans": False, "numbers": column.numbers is not None}
    for known in column.values:
        kinds["booleans" if isinstance(known, bool) else "strings"] = True
        if kinds["booleans"] and kinds["strings"]:
            break
    wanted = "booleans" if isinstance(value, bool) else "strings" if isinstance(value, str) else "numbers"
    if any(kinds.values()) and not kinds[wanted]:
        held = " and ".join(kind for kind, is_held in kinds.items() if is_held)
        raise FilterRefused(f"compares {term.attribute!r}, which holds {held}, with {value_text(value)}", term.column)
