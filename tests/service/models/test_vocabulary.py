"""Ids and rows stay each other's inverse, through memory and disk."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ModelRefused
from service.models.vocabulary import Vocabulary


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20), unique=True, max_size=30)
)
def test_ids_survive_their_arrays(ids: list[str]) -> None:
    """Any ids come back in the same order, with the same rows."""
    loaded = Vocabulary.from_arrays(*Vocabulary(ids).to_arrays())
    assert loaded.id_of == ids
    assert loaded.row_of == {id_: row for row, id_ in enumerate(ids)}


def test_an_id_that_occurs_twice_is_refused() -> None:
    """Two rows for one id would split a user in two."""
    with pytest.raises(ModelRefused, match="2 ids holds only 1"):
        Vocabulary(["a", "a"])


@pytest.mark.parametrize(
    ("data", "offsets"),
    [(b"ab", [0, 1]), (b"ab", [1, 2]), (b"ab", []), (b"ab", [0, 2, 1, 2]), (b"\xff\xfe", [0, 2]), (b"ab", [0, -1, 2])],
)
def test_arrays_that_do_not_fit_are_refused(data: bytes, offsets: list[int]) -> None:
    """Offsets that do not cover the bytes in order, or bytes that are not UTF-8, are no vocabulary."""
    with pytest.raises(ModelRefused):
        Vocabulary.from_arrays(np.frombuffer(data, np.uint8), np.array(offsets, np.int64))


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200).filter(
        lambda id_: len(id_) > 128 or any(unicodedata.category(c) == "Cc" for c in id_)
    ),
    st.lists(st.text("aÂ\u00a0é", min_size=1, max_size=5), unique=True, max_size=3),
)
def test_an_id_that_no_request_can_name_is_refused(bad: str, others: list[str]) -> None:
    """Control characters and over 128 characters, wherever among the ids; a no-break space is no control character."""
    Vocabulary.from_arrays(*Vocabulary(others).to_arrays())
    ids = [*others, bad]
    with pytest.raises(ModelRefused, match=r"control character|128 characters"):
        Vocabulary.from_arrays(*Vocabulary(ids).to_arrays())


def test_an_empty_id_is_refused() -> None:
    """It would be a user whom no request can name."""
    with pytest.raises(ModelRefused, match="empty"):
        Vocabulary.from_arrays(*Vocabulary(["a", ""]).to_arrays())
