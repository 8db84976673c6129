"""Words, spellings, the text index, and the order of what is found."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lists.item_scores import ListUser
from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.models.ranking.scoring import NO_ROWS
from service.models.snapshot import ModelSnapshot
from service.search import item_search
from service.search.item_search import ItemSearch, SearchResult, find
from service.search.spelling import allowed_edits, distance
from service.search.text_index import TextIndex
from service.search.words import terms, tokens
from tests.support.models.clustered_model import clustered_model

N_ITEMS = 200


@cache
def catalogue() -> tuple[ModelSnapshot, TextIndex]:
    """A model whose items are called after their number's digits and parity; the last has words like an expression."""
    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    records = [
        ItemRecord(" ".join(digits[int(digit)] for digit in str(row)), {"parity": "odd" if row % 2 else "even"})
        for row in range(N_ITEMS - 1)
    ]
    records.append(ItemRecord('NOT "near" AND * OR (a:b) ^c -d', {"tags": ["x OR y", 'NEAR("a", 3)']}))
    model = replace(clustered_model(N_ITEMS, k=4), item_records=ItemRecords.of(records))
    return model, TextIndex(model)


def search(text: str, n: int = 500, user: ListUser | None = None) -> SearchResult:
    model, index = catalogue()
    return find(model, index, ItemSearch(n, text, None, None, NO_ROWS, user))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Amélie (Le Fabuleux destin d'Amélie)", "amelie le fabuleux destin damelie"),
        ("STRASSE straße ﬁn Ⅳ", "strasse strasse fin iv"),
        ("e\u0301tude Ångström", "etude angstrom"),
        ("千と千尋 2", "千 と 千 尋 2"),
        ("한국 영화", "한국 영화"),
        ("हिन्दी फ़िल्म", "हिन्दी फ\u093cिल्म"),
        ("ภาพยนตร์", "ภ า พ ย น ต ร ์"),
        ("Spider-Man: 3_D", "spider man 3 d"),
        ("…!?", ""),
    ],
)
def test_words_of_texts(text: str, expected: str) -> None:
    """Lower case without diacritics; scripts without spaces by character; vowel signs are letters."""
    assert tokens(text) == expected


def test_only_long_words_and_the_last_are_beginnings() -> None:
    """A short word in front is a word of its own, as in "a star is b"."""
    assert [(term.text, term.is_prefix) for term in terms("a star is b")] == [
        ("a", False),
        ("star", True),
        ("is", False),
        ("b", True),
    ]


def reference_distance(one: str, other: str) -> int:
    """The optimal string alignment distance by its recursive definition."""
    if not one or not other:
        return len(one) + len(other)
    least = min(
        reference_distance(one[:-1], other) + 1,
        reference_distance(one, other[:-1]) + 1,
        reference_distance(one[:-1], other[:-1]) + (one[-1] != other[-1]),
    )
    if len(one) > 1 and len(other) > 1 and one[-1] == other[-2] and one[-2] == other[-1]:
        least = min(least, reference_distance(one[:-2], other[:-2]) + 1)
    return least


@settings(max_examples=100, deadline=None)
@given(st.text("abc", max_size=5), st.text("abc", max_size=5), st.integers(0, 3))
def test_the_distance_is_that_of_its_definition(one: str, other: str, most: int) -> None:
    """Up to the largest that matters."""
    assert distance(one, other, most) == min(reference_distance(one, other), most + 1)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["three", "eight"]), st.integers(0, 4), st.sampled_from("abcx"), st.booleans())
def test_one_edit_of_a_word_is_corrected(word: str, at: int, letter: str, swaps: bool) -> None:
    """A letter replaced, or two swapped; words that are too short to be told apart stay as they are."""
    at = min(at, len(word) - 2)
    typed = word[:at] + word[at + 1] + word[at] + word[at + 2 :] if swaps else word[:at] + letter + word[at + 1 :]
    _, index = catalogue()
    (term,) = terms(typed)
    assert index.corrected(term).text == word
    assert index.corrected(terms("oen")[0]).text == "oen"
    assert allowed_edits("oen") == 0


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text('"*^:()-+ANDORNEAR ', max_size=20))
def test_no_text_is_an_expression(text: str) -> None:
    """Whatever is searched for is words or nothing: quotes and operators of FTS5 do nothing."""
    found = search(text, 5)
    assert len(found.rows) == found.scores.size <= 5
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["one", "two", "nine", "odd", "even", "se"]), min_size=1, max_size=3, unique=True))
def test_exactly_the_items_with_all_words_come_first(words: list[str]) -> None:
    """As a scan over all items finds them; behind them those with some of the words."""
    model, _ = catalogue()
    records = model.item_records
    assert records is not None

    def has(row: int, word: str, *, is_last: bool) -> bool:
        record = records.record(row)
        own = f"{record.title} {record.attributes.get('parity', '')}".lower().split()
        return any(each.startswith(word) if is_last or len(word) > 2 else each == word for each in own)

    found = search(" ".join(words))
    matching = {
        row
        for row in range(N_ITEMS - 1)
        if all(has(row, word, is_last=place == len(words) - 1) for place, word in enumerate(words))
    }
    assert set(found.rows[: len(matching)]) == matching


def test_an_item_is_found_by_its_whole_title_among_many_that_begin_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where so many match that only the popular ones are looked at."""
    model, _ = catalogue()
    unpopular = int(np.argmin(np.where(np.arange(N_ITEMS) < 10, model.popularity, np.inf)))
    title = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"][unpopular]
    assert search(title, 3).rows[0] == unpopular
    monkeypatch.setattr(item_search, "_MOST_RANKED", 5)
    monkeypatch.setattr(item_search, "_POOL", 5)
    assert search(title, 3).rows[0] == unpopular


def test_a_search_that_takes_too_long_goes_by_popularity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of failing."""
    monkeypatch.setattr("service.search.text_index._STEPS", 1)
    monkeypatch.setattr(item_search, "_WITHIN_S", -1.0)
    model, _ = catalogue()
    index = TextIndex(model)
    with pytest.raises(TimeoutError):
        list(index.matches(terms("odd"), within_s=-1.0))
    found = find(model, index, ItemSearch(5, "odd", None, None, NO_ROWS, None))
    odd = [row for row in model.popular_rows.tolist() if row % 2 and row < N_ITEMS - 1]
    assert model.popularity[found.rows].tolist() == model.popularity[odd[:5]].tolist()


def test_taste_is_worth_less_than_words() -> None:
    """A user's favourites are first among equals, and no item passes one with a better title for it."""
    model, _ = catalogue()
    for user_row in range(0, 40, 8):
        # Titles of three words each match equally.
        rows = [row for row in search("odd", user=ListUser(user_row)).rows if row >= 100]
        scores = model.item_factors[rows] @ model.user_factors[user_row] + model.item_bias[rows]
        assert scores.tolist() == pytest.approx(sorted(scores.tolist(), reverse=True))
        assert search("seven", user=ListUser(user_row)).rows[0] == 7


def test_rare_words_count_where_no_item_has_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word that most items have does not hide the item that has the rare one."""
    monkeypatch.setattr(item_search, "_MOST_RANKED", 50)
    assert set(search("odd nothing one seven seven", 3).rows[:2]) == {77, 177}
    assert search("nothing near odd", 3).rows[0] == N_ITEMS - 1
