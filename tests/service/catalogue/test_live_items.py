"""The item changes of a replica: the same on every replica once the feed has caught up, whatever came first."""

from hypothesis import given
from hypothesis import strategies as st

from service.catalogue.live_items import LiveItems
from telemetry.batch import EventPosition, Position
from telemetry.events import ItemChange, Record
from telemetry.live.item_table import ItemTable
from tests.support.sample_events import item_change


def change(item_id: str, second: int, title: str = "x") -> ItemChange:
    return item_change(item_id=item_id, title=title, received_at=f"2026-11-21T01:02:{second:02d}.000Z")


writes = st.lists(
    st.tuples(st.sampled_from(["mine", "theirs"]), st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=12
)


@given(writes, st.data())
def test_replicas_agree_once_the_feed_has_passed(made: list[tuple[str, str, int]], data: st.DataObject) -> None:
    """The one that accepted changes, the other one, and one that loaded a snapshot in the middle."""
    records = [
        Record(change(item_id, second, f"{producer} {seq}"), producer, 1, seq)
        for seq, (producer, item_id, second) in enumerate(made, 1)
    ]
    mine, theirs, late = LiveItems(), LiveItems(), LiveItems()
    for record in records:
        assert isinstance(record.event, ItemChange)
        owner = mine if record.producer == "mine" else theirs
        owner.accept([record.event], EventPosition(*record[1:]))
        assert owner.get(record.event.item_id) is not None
    cut = data.draw(st.integers(0, len(records)))
    for index, record in enumerate(records):
        marks = {record.producer: Position(record.epoch, record.seq)}
        for replica in (mine, theirs):
            replica.apply([record], marks)
        if index + 1 == cut:
            table = ItemTable()
            for earlier in records[:cut]:
                table.apply(earlier)
            late.load(table)
        if index + 1 > cut:
            late.apply([record], marks)
    if cut == len(records):
        return
    table = ItemTable()
    for record in records:
        table.apply(record)
    for replica in (mine, theirs) if cut == 0 else (mine, theirs, late):
        assert replica.changes() == list(table.changes())
        assert replica.copy().changes() == replica.changes()
    assert mine.watermark == theirs.watermark


def test_a_duplicate_that_the_archive_removed_is_forgotten() -> None:
    """A client's retry reached two replicas: the one with the duplicate drops it when the feed has passed it."""
    first, retry, between = change("a", 1, "first"), change("a", 3, "retry"), change("a", 2, "between")
    other = LiveItems()
    assert other.accept([retry], EventPosition("q", 1, 1)) == {"a"}
    assert other.apply([Record(first, "p", 1, 1)], {"p": Position(1, 1)}) == set()
    assert other.get("a") == retry
    assert other.apply([Record(between, "p", 1, 2)], {"p": Position(1, 2), "q": Position(1, 1)}) == {"a"}
    assert (other.get("a"), other.watermark) == (between, "p:1-2")
    before = other.revision
    assert other.apply([], {"q": Position(1, 9)}) == set()
    assert other.revision == before


def test_a_snapshot_names_what_it_changes() -> None:
    """So that only those items are put into the served catalogue; what the feed delivered since stays."""
    items, table = LiveItems(), ItemTable()
    later = change("b", 5)
    items.apply([Record(change("a", 1), "p", 1, 1), Record(later, "p", 1, 4)], {})
    for record in (
        Record(change("a", 1), "p", 1, 1),
        Record(change("b", 1), "p", 1, 2),
        Record(change("c", 1), "p", 1, 3),
    ):
        table.apply(record)
    assert items.load(table) == {"c"}
    assert (len(items), items.get("b")) == (3, later)
