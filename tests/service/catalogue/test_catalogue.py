"""Availability of items in the catalogue, and records written over those of the model."""

import pytest

from service.catalogue.catalogue import Catalogue, overlaid
from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.models.vocabulary import Vocabulary


def catalogue(live: dict[int, ItemRecord]) -> Catalogue:
    items = Vocabulary(["a", "b", "c", "d"])
    return Catalogue(items, ItemRecords.of([ItemRecord("A"), ItemRecord("B")]), live, {}, n_model_rows=2)


@pytest.mark.parametrize(
    ("now_s", "unavailable"), [(5.0, [0, 1]), (10.0, [0]), (19.0, [0]), (20.0, [0, 1, 3]), (1e9, [0, 1, 3])]
)
def test_windows_open_and_close_at_their_second(now_s: float, unavailable: list[int]) -> None:
    """From is inclusive and until exclusive; a hidden item is never available, and an unlimited one always."""
    live = {
        0: ItemRecord(hidden=True, available_from_s=0.0),
        1: ItemRecord(available_from_s=10.0, available_until_s=20.0),
        2: ItemRecord("C"),
        3: ItemRecord(available_until_s=20.0),
    }
    served = catalogue(live)
    for _ in range(2):
        assert served.unavailable_rows(now_s).tolist() == unavailable
    for time_s, expected in ((1.0, [0, 1]), (15.0, [0]), (25.0, [0, 1, 3]), (15.0, [0]), (1.0, [0, 1])):
        assert served.unavailable_rows(time_s).tolist() == expected


def test_records_are_replaced_without_a_change_of_the_former_catalogue() -> None:
    """A request that holds the former catalogue sees what it saw."""
    before = catalogue({})
    after = before.with_records({1: ItemRecord("B2", hidden=True)}, "p:1-7")
    assert (before.fields(1, ["title"]), after.fields(1, ["title"])) == ({"title": "B"}, {"title": "B2"})
    assert before.unavailable_rows(0.0).size == 0
    assert after.unavailable_rows(0.0).tolist() == [1]
    assert (after.revision, after.watermark, before.watermark) == (before.revision, "p:1-7", "")
    assert catalogue({}).revision > before.revision
    assert after.record(3) == ItemRecord()
    assert (after.row_of("d"), after.row_of("e")) == (3, None)


def test_a_writer_replaces_what_they_give() -> None:
    """A title or attributes that were not given stay those of the model."""
    published = ItemRecord("A", {"year": 1995})
    assert overlaid(published, ItemRecord(hidden=True), has_attributes=False) == ItemRecord(
        "A", {"year": 1995}, hidden=True
    )
    assert overlaid(published, ItemRecord("B"), has_attributes=True) == ItemRecord("B", {})
