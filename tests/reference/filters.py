"""Reference of filters: one item at a time, by the words of docs/api.md."""

import operator
from collections.abc import Mapping
from typing import Any

from service.lists.filters.expression import Comparison, Expression, Membership, Not

_OPERATORS = {"==": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def matches(expression: Expression, item: Mapping[str, Any]) -> bool:
    """Return whether an item with these attributes matches."""
    if isinstance(expression, Not):
        return not matches(expression.term, item)
    if isinstance(expression, Comparison):
        return _compares(item.get(expression.attribute), expression.operator, expression.value)
    if isinstance(expression, Membership):
        return any(_compares(item.get(expression.attribute), "==", value) for value in expression.values)
    results = [matches(term, item) for term in expression.terms]
    return all(results) if expression.word == "and" else any(results)


def _compares(held: Any, name: str, value: Any) -> bool:
    if value is None:
        return held is None
    if isinstance(held, list):
        return any(_compares(one, name, value) for one in held)
    if held is None or _kind(held) != _kind(value):
        return False
    return bool(_OPERATORS[name](held, value))


def _kind(value: Any) -> str:
    return "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
