"""Filters: the grammar, its errors, its logic against a reference, and the cache of masks."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import FilterRefused
from service.lists.filters.evaluation import matching
from service.lists.filters.masks import FilterMasks
from service.lists.filters.parsing import LENGTH_LIMIT, parse
from tests.reference.filters import matches
from tests.support.models.attribute_columns import Attributes, ListedColumns

FILMS: list[Attributes] = [
    {"genre": ["Comedy", "Romance"], "year": 1995, "tag": ["gore", "fun"], "dubbed": True},
    {"genre": ["Comedy"], "year": 1989, "dubbed": False},
    {"genre": ["Horror"], "year": 1999.5, "tag": ["gore"], "studio": "A24"},
    {"genre": [], "studio": "Pixar", "seen on": "2020-05-01"},
    {"genre": ["Comedy"], "year": 2001, "seen on": "2021-01-01"},
    {},
]


def rows(text: str) -> list[int]:
    return np.flatnonzero(matching(parse(text).expression, ListedColumns(FILMS))).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('genre == "Comedy" and year >= 1990 and not (tag in ["gore"])', [4]),
        ('genre == "Comedy"', [0, 1, 4]),
        ("genre == 'Comedy' OR studio == \"A24\"", [0, 1, 2, 4]),
        ('genre != "Comedy"', [2, 3, 5]),
        ('genre in ["Horror", "Romance"]', [0, 2]),
        ('genre not in ["Horror", "Romance"]', [1, 3, 4, 5]),
        ('"gore" in tag', [0, 2]),
        ('"gore" not in tag', [1, 3, 4, 5]),
        ("year < 1995", [1]),
        ("year <= 1995 or year > 2000.5", [0, 1, 4]),
        ("not year >= 1990", [1, 3, 5]),
        ("year == null", [3, 5]),
        ("year != null and year in [1989, 2001.0]", [1, 4]),
        ("dubbed", [0]),
        ("dubbed == false", [1]),
        ("not dubbed", [1, 2, 3, 4, 5]),
        ("`seen on` >= '2020-12-31'", [4]),
        ('studio > "A" and studio < "B"', [2]),
        # An attribute that no item has, and whose name is like no other, is missing in all.
        ('dubbed or colour == "x"', [0]),
        ("colour == null and not (colour in [3]) and colour in [1, null]", [0, 1, 2, 3, 4, 5]),
        # "and" binds tighter than "or", and "not" tighter than both.
        ('studio == "Pixar" or genre == "Comedy" and year < 1990', [1, 3]),
        ('not studio == "Pixar" and year == null', [5]),
    ],
)
def test_a_filter_finds_the_items_that_it_describes(text: str, expected: list[int]) -> None:
    """The documented operators, with missing values and lists."""
    assert rows(text) == expected


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 1, "is empty"),
        ("genre", 1, "'genre', which holds strings, with true"),
        ('genre = "Comedy"', 7, "'=='"),
        ("genre ==", 9, "a value"),
        ('genre == "Comedy" year > 3', 19, "'and', 'or' or the end"),
        ("genre in []", 11, "a value"),
        ('genre in ["a" "b"]', 15, "',' or ']'"),
        ('genre == "Comedy', 10, "closing"),
        ("(year > 3", 10, "')'"),
        ("year > 3)", 9, "the end"),
        ("year > true", 1, "neither a number nor a string"),
        ("year > 1990 && dubbed", 13, "'and', 'or' or 'not'"),
        ("year > 12abc", 8, "malformed number"),
        ("year > 1e999", 8, "out of range"),
        (r'genre == "\q"', 11, "escape"),
        (r'genre == "\ud800"', 11, "surrogate"),
        ('gender == "x" or genre == "Comedy"', 1, "(did you mean genre?)"),
        ('year >= "1990"', 1, "'year', which holds numbers, with \"1990\""),
        ("genre == 3", 1, "'genre', which holds strings, with 3"),
        ("(" * 20 + "dubbed" + ")" * 20, 1, "nested"),
        ("not " * 20 + "dubbed", 1, "nested"),
        (" or ".join(f"year == {n}" for n in range(65)), 1, "65 comparisons"),
        ("a" * (LENGTH_LIMIT + 1), LENGTH_LIMIT + 1, "longer"),
    ],
)
def test_a_bad_filter_is_refused_with_its_column(text: str, column: int, words: str) -> None:
    """The reason says what is wrong, and the column where."""
    with pytest.raises(FilterRefused) as refused:
        rows(text)
    assert refused.value.column == column
    assert words in refused.value.reason


names = st.sampled_from(["genre", "year", "tag", "dubbed", "mixed"])
attributes = st.fixed_dictionaries(
    {},
    optional={
        "genre": st.lists(st.sampled_from(["Comedy", "Horror", ""]), max_size=3),
        "year": st.integers(1990, 1994),
        "tag": st.sampled_from(["a", "b", 'quo"te']),
        "dubbed": st.booleans(),
        "mixed": st.one_of(st.booleans(), st.integers(0, 2), st.sampled_from(["x", "y"])),
    },
)
# Every type of value occurs, so that no comparison is refused for its type.
FULL: list[Attributes] = [
    dict.fromkeys(("genre", "year", "tag", "dubbed", "mixed"), value) for value in ("Comedy", 1990, True)
]
values = st.one_of(
    st.sampled_from(['"Comedy"', "'a'", r'"quo\"te"', '"x"', "1990", "1992.5", "0", "true", "FALSE", "null", '""'])
)
ordered = st.sampled_from(['"Comedy"', '"x"', "1990", "1992.5", "-1e0"])


def texts() -> st.SearchStrategy[str]:
    terms = st.one_of(
        st.builds("{} {} {}".format, names, st.sampled_from(["==", "!="]), values),
        st.builds("{}{}{}".format, names, st.sampled_from(["<", "<=", ">", ">="]), ordered),
        st.builds(
            lambda name, word, chosen: f"{name} {word} [{', '.join(chosen)}]",
            names,
            st.sampled_from(["in", "not in", "NOT IN"]),
            st.lists(values, min_size=1, max_size=4),
        ),
        st.builds("{} {} {}".format, values, st.sampled_from(["in", "not in"]), names),
        names,
    )
    return st.recursive(
        terms,
        lambda inner: st.one_of(
            st.builds("({}) {} {}".format, inner, st.sampled_from(["and", "or", "AND"]), inner),
            st.builds("{} {} {}".format, inner, st.sampled_from(["and", "or"]), inner),
            st.builds("not ({})".format, inner),
            st.builds("not {}".format, inner),
        ),
        max_leaves=6,
    )


@settings(max_examples=150, deadline=None)
@given(texts(), st.lists(attributes, max_size=8))
def test_filters_agree_with_the_reference(text: str, drawn: list[dict[str, Any]]) -> None:
    """On random items and filters; the canonical text has the same meaning, and is its own canonical text."""
    items = [*drawn, *FULL]
    columns = ListedColumns(items)
    parsed = parse(text)
    assert matching(parsed.expression, columns).tolist() == [matches(parsed.expression, item) for item in items]
    again = parse(parsed.text)
    assert again.text == parsed.text
    assert matching(again.expression, columns).tolist() == matching(parsed.expression, columns).tolist()


TOKENS = ["a", "1", '"', "'", "(", ")", "[", "]", ",", "==", "<", "in", "not", "and", "or", "`", "-"]


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(TOKENS)).map(" ".join)))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No other error, and a column within the text or behind its end."""
    refused = None
    try:
        parsed = parse(text)
    except FilterRefused as error:
        refused = error
    if refused is None:
        assert parse(parsed.text).text == parsed.text
    else:
        assert 1 <= refused.column <= len(text) + 1
        assert refused.reason


def test_masks_are_cached_by_meaning_until_an_item_changes() -> None:
    """Another text of the same meaning finds the mask; another revision makes a new one."""
    columns, masks = ListedColumns(FILMS), FilterMasks()
    first = masks.of('genre == "Comedy" and year >= 1990', columns)
    assert masks.of("(year>=1990) AND genre=='Comedy'", columns) is first
    assert (first.count, first.rows.tolist()) == (2, [0, 4])
    columns.replace(0, {"genre": ["Drama"], "year": 1995})
    second = masks.of('genre == "Comedy" and year >= 1990', columns)
    assert second.rows.tolist() == [4]
    assert len(masks) == 1


def test_the_cache_of_masks_is_bounded() -> None:
    """The mask that was not used for the longest time goes first."""
    columns, masks = ListedColumns(FILMS), FilterMasks(cache_bytes=2 * (9 * len(FILMS) + 1024))
    kept = masks.of("year == 1", columns)
    dropped = masks.of("year == 2", columns)
    assert masks.of("year == 1", columns) is kept
    masks.of("year == 3", columns)
    assert len(masks) == 2
    assert masks.of("year == 1", columns) is kept
    assert masks.of("year == 2", columns) is not dropped
