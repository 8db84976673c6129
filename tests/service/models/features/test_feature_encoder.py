import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ModelRefused
from service.models.features.feature_encoder import NO, UNKNOWN, YES, Attributes, FeatureEncoder
from tests.reference import features as reference

VALUES = st.one_of(
    st.sampled_from(["F", "M", "doctor", "", "25", "true", "é"]),
    st.booleans(),
    st.integers(-3, 60),
    st.floats(-2, 90),
    st.just(10**400),
    st.lists(st.sampled_from(["jazz", "rock", "M", "ska"]), max_size=4),
)
ATTRIBUTES = st.dictionaries(st.sampled_from(["age", "gender", "likes", "is_new"]), VALUES, max_size=4)
ROWS = st.lists(ATTRIBUTES, max_size=30)


@given(users=ROWS, items=ROWS, others=ROWS)
def test_categories_are_those_of_the_definition_whoever_computes_them(
    users: list[Attributes], items: list[Attributes], others: list[Attributes]
) -> None:
    """Also for values that the encoder was not fitted on, and for an encoder that was read back."""
    fitted = FeatureEncoder.fit(users, items, min_users=2, min_items=2)
    read = FeatureEncoder.from_bytes(fitted.to_bytes())
    assert read == fitted
    assert read.fingerprint == fitted.fingerprint

    for encoder in (fitted, read):
        every_user = [*users, *others]
        table = encoder.user_table(every_user)
        assert table.dtype == np.int32
        for row, attributes in zip(table, every_user, strict=True):
            assert row.tobytes() == encoder.user(attributes).tobytes()
        every_item = [*items, *others]
        features = encoder.item_features(every_item)
        assert features.indptr.dtype == np.int64
        assert features.ids.dtype == np.int32
        assert features.ids.max(initial=0) < encoder.n_item_categories
        for row, attributes in enumerate(every_item):
            alone = encoder.item_features([attributes])
            own = features.ids[features.indptr[row] : features.indptr[row + 1]]
            assert own.tobytes() == alone.ids.tobytes()
            assert own.size >= 1
            assert bool((np.diff(own) > 0).all())
        assert bool((table < np.array(encoder.user_sizes, dtype=np.int32)).all())


TYPED = st.fixed_dictionaries(
    {},
    optional={
        "age": st.integers(1, 60),
        "gender": st.sampled_from(["F", "M", "other"]),
        "likes": st.lists(st.sampled_from(["jazz", "rock", "ska"]), max_size=3),
        "is_new": st.booleans(),
    },
)


@given(users=st.lists(TYPED, max_size=30), others=st.lists(TYPED, max_size=10))
def test_the_slow_reference_agrees(users: list[Attributes], others: list[Attributes]) -> None:
    """Attributes of one kind each, as most catalogues have them."""
    encoder = FeatureEncoder.fit(users, users, min_users=2, min_items=2)
    everyone = [*users, *others]
    assert encoder.user_table(everyone).tolist() == [reference.user(encoder, given) for given in everyone]
    features = encoder.item_features(everyone)
    rows = [
        features.ids[start:stop].tolist() for start, stop in zip(features.indptr, features.indptr[1:], strict=False)
    ]
    assert rows == reference.items(encoder, everyone)


PEOPLE: list[Attributes] = [
    {"age": age, "gender": gender, "likes": likes}
    for age in (1, 18, 25, 35)
    for gender, likes in (("F", ["jazz"]), ("M", ["rock", "jazz"]), ("M", []))
]


def test_an_age_between_published_age_groups_belongs_to_the_lower_one() -> None:
    encoder = FeatureEncoder.fit(PEOPLE, [], min_users=3)
    assert encoder.users[0].edges == (18.0, 25.0, 35.0)
    ages = [encoder.user({"age": age})[0] for age in (0, 17.9, 18, 24, 25, 99)]
    assert ages == [1, 1, 2, 2, 3, 4]


def test_an_attribute_with_several_texts_is_a_column_for_each() -> None:
    encoder = FeatureEncoder.fit(PEOPLE, [], min_users=3)
    assert [each.name for each in encoder.users] == ["age", "gender", "likes"]
    assert encoder.user_sizes == (5, 3, 3, 3)
    assert encoder.user({"likes": ["rock", "polka"]}).tolist() == [UNKNOWN, UNKNOWN, NO, YES]
    assert encoder.user({"likes": "jazz"}).tolist() == [UNKNOWN, UNKNOWN, YES, NO]
    assert encoder.user({"likes": []}).tolist() == [UNKNOWN, UNKNOWN, NO, NO]


def test_what_is_given_replaces_what_is_known() -> None:
    """Nothing else changes, and null takes a value back."""
    encoder = FeatureEncoder.fit(PEOPLE, [], min_users=3)
    known = encoder.user({"age": 30, "gender": "F", "likes": ["jazz"]})
    now = encoder.user({"age": 40, "gender": None, "shoe_size": 44}, known)
    assert now.tolist() == [4, UNKNOWN, YES, NO]
    assert known.tolist() == [3, 1, YES, NO]


def test_attributes_that_say_nothing_to_the_model_are_named() -> None:
    encoder = FeatureEncoder.fit(PEOPLE, [], min_users=3)
    given: Attributes = {"age": 40, "gender": "X", "shoe_size": 44, "likes": None}
    assert encoder.unused(given) == ["gender", "shoe_size"]
    assert encoder.user_names == ("age", "gender", "likes")


def test_rare_values_are_unknown() -> None:
    """A category of four users would tell who they are."""
    people: list[Attributes] = [{"town": "Rome" if n < 5 else "Bree"} for n in range(9)]
    encoder = FeatureEncoder.fit(people, [])
    assert encoder.users[0].texts == ("Rome",)
    assert encoder.user({"town": "Bree"}).tolist() == [UNKNOWN]


def test_many_distinct_numbers_have_bands_of_equal_size() -> None:
    years: list[Attributes] = [{"year": 1900 + n % 100} for n in range(1600)]
    encoder = FeatureEncoder.fit([], years)
    counts = np.bincount(encoder.item_features(years).ids)[1:]
    assert counts.size == 16
    assert counts.min() >= 80
    assert counts.max() <= 120


def test_values_without_types_mean_the_same() -> None:
    """As in a file of text, or where a caller sends a code as a number."""
    people: list[Attributes] = [{"age": 20 + n % 3, "zip": "55117", "new": n % 2 == 0} for n in range(30)]
    encoder = FeatureEncoder.fit(people, [])
    typed = encoder.user({"age": 21, "zip": "55117", "new": True})
    assert UNKNOWN not in typed
    assert typed.tolist() == encoder.user({"age": "21", "zip": 55117, "new": "True"}).tolist()
    assert encoder.user({"age": "old", "zip": [], "new": "maybe"}).tolist() == [UNKNOWN] * 3


@given(rows=ROWS, seed=st.integers(0, 9))
def test_the_order_of_users_and_items_does_not_matter(rows: list[Attributes], seed: int) -> None:
    shuffled = [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]
    assert FeatureEncoder.fit(rows, rows) == FeatureEncoder.fit(shuffled, shuffled)


def _damaged(change: dict[str, Any]) -> bytes:
    content = FeatureEncoder.fit(PEOPLE, PEOPLE).to_json()
    content["users"][0] |= change
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"format": 2, "users": [], "items": []}',
        b'{"format": 1, "users": {}, "items": []}',
        b'{"format": 1, "users": [{}], "items": []}',
        b'{"format": 1, "users": [17], "items": []}',
        _damaged({"name": "zebra"}),
        _damaged({"name": 3}),
        _damaged({"texts": [3]}),
        _damaged({"texts": ["b", "a"]}),
        _damaged({"edges": [2, 1]}),
        _damaged({"edges": ["x"]}),
        _damaged({"edges": [float("nan")]}),
        _damaged({"flags": 1}),
    ],
)
def test_a_damaged_encoder_is_refused(content: bytes) -> None:
    with pytest.raises(ModelRefused):
        FeatureEncoder.from_bytes(content)
