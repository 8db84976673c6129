"""Duplicate fields are found exactly where they are."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.duplicate_fields import first_duplicate, has_duplicates

texts = st.text(st.sampled_from('ab:"\\{}[], \n/é'), max_size=6)


class Pairs(list[tuple[str, Any]]):
    """An object as pairs, which may hold a name twice."""


values = st.recursive(
    texts | st.none() | st.integers(-3, 3),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(texts, inner), max_size=4).map(Pairs),
    max_leaves=20,
)


def written(value: Any, space: str) -> str:
    if isinstance(value, Pairs):
        fields = (f"{json.dumps(name)}{space}:{space}{written(child, space)}" for name, child in value)
        return "{" + f",{space}".join(fields) + "}"
    if isinstance(value, list):
        return "[" + f",{space}".join(written(child, space) for child in value) + "]"
    return json.dumps(value)


def repeats(value: Any) -> bool:
    if isinstance(value, Pairs):
        names = [name for name, _ in value]
        return len(set(names)) < len(names) or any(repeats(child) for _, child in value)
    return isinstance(value, list) and any(map(repeats, value))


def count(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(count, value.values()))
    return sum(map(count, value)) if isinstance(value, list) else 0


@given(value=values, space=st.sampled_from(["", " ", "\n\t "]))
def test_counting_agrees_with_a_parser_of_pairs(value: Any, space: str) -> None:
    """Also with colons, quotation marks and backslashes in strings and names."""
    raw = written(value, space).encode()
    found = has_duplicates(raw, count(orjson.loads(raw)))
    assert found is repeats(value)
    if found:
        assert first_duplicate(raw) is not None


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}, "a": 2}', "b.c"),
        (b'{"a": [0, {"b": 1}, {"b": 1, "\\u0062": 2}]}', "a[2].b"),
        (b'[{"": 1, "": 2}]', "[0]."),
        (b'{"' + b"x" * 999 + b'": 1, "' + b"x" * 999 + b'": 1}', "x" * 256),
    ],
)
def test_the_first_duplicate_is_named(raw: bytes, where: str) -> None:
    """By its path, shortened if it is very long."""
    assert first_duplicate(raw) == where
