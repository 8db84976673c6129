"""Columns of attributes, against a dict of values for each item."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.catalogue.catalogue import Catalogue, live_columns, model_columns, of_model
from service.errors import ModelRefused
from service.models.items.record import AttributeValue, ItemRecord
from service.models.items.records import ItemRecords
from service.models.vocabulary import Vocabulary

texts = st.sampled_from(["Comedy", "Drama", "War", "", "ünï", "10"])
values = st.one_of(
    texts, st.booleans(), st.integers(-5, 5), st.floats(-2, 2), st.lists(texts, max_size=4).map(list[str])
)
records = st.builds(
    ItemRecord,
    st.one_of(st.none(), st.text(max_size=5).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))),
    st.dictionaries(st.sampled_from(["genres", "year", "adult"]), values, max_size=3),
)


def check(catalogue: Catalogue, expected: Mapping[int, ItemRecord]) -> None:
    """Compare every column, and every record, with the plain records by row."""
    names = {name for record in expected.values() for name in record.attributes}
    assert names <= set(catalogue.column_names)
    for name in catalogue.column_names:
        column = catalogue.column(name)
        assert column is not None
        value_of = {row: record.attributes.get(name) for row, record in expected.items()}
        for asked in ("Comedy", "Drama", "War", "", "ünï", "10", "absent", True, False):
            rows = [row for row, value in sorted(value_of.items()) if holds(value, asked)]
            assert column.rows_of(asked).tolist() == rows
            assert asked in column.values or not rows
        for row in range(catalogue.n_rows):
            value = value_of.get(row)
            number = None if column.numbers is None or np.isnan(column.numbers[row]) else float(column.numbers[row])
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            assert number == (value if is_number else None)
            assert column.present[row] == (value is not None and value != [])
    for row, record in expected.items():
        assert catalogue.record(row).attributes == record.attributes


def holds(value: AttributeValue | None, asked: str | bool) -> bool:
    if isinstance(asked, bool):
        return isinstance(value, bool) and value == asked
    return asked in value if isinstance(value, list) else isinstance(value, str) and value == asked


@settings(max_examples=60, deadline=None)
@given(st.lists(records, min_size=1, max_size=6), st.dictionaries(st.integers(0, 8), records, max_size=5))
def test_columns_hold_the_latest_values(published: list[ItemRecord], written: dict[int, ItemRecord]) -> None:
    """Of the model's records and those written in their place or behind them, in any mix of kinds."""
    n_rows = 9
    base = ItemRecords.of(published)
    columns = live_columns(model_columns(base), len(published), written, n_rows)
    catalogue = Catalogue(Vocabulary(map(str, range(n_rows))), base, written, columns)
    check(catalogue, dict(enumerate(published)) | written)


def test_a_plural_name_answers_for_its_singular() -> None:
    """As people write filters: genre == "Comedy" where the attribute is `genres`."""
    catalogue = of_model(Vocabulary(["a"]), ItemRecords.of([ItemRecord("A", {"genres": ["Comedy"]})]))
    assert catalogue.column("genre") is catalogue.column("genres") is not None
    assert catalogue.column("nothing") is None
    assert catalogue.fields(0, ["title", "genre", "year"]) == {"title": "A", "genre": ["Comedy"], "year": None}


def test_a_damaged_record_is_refused() -> None:
    """When the columns are built, before the model is served."""
    for content in (b"{", b"[]", b'{"title":1}', b'{"attributes":{"a":null}}', b'{"attributes":{"a":[1]}}'):
        damaged = ItemRecords(np.frombuffer(content, np.uint8), np.array([0, len(content)]))
        with pytest.raises(ModelRefused, match="item catalogue"):
            of_model(Vocabulary(["a"]), damaged)
    with pytest.raises(ModelRefused, match="do not fit"):
        ItemRecords(np.zeros(3, np.uint8), np.array([0, 4]))
