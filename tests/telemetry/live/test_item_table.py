"""The table of item changes does not depend on the order or the number of deliveries."""

from hypothesis import given
from hypothesis import strategies as st

from telemetry.events import Record, encode
from telemetry.live.item_table import ItemTable
from tests.support import sample_events

changes = st.builds(
    lambda item, second, kind, producer, seq: Record(
        sample_events.item_change(
            item_id=item, kind=kind, title=f"{producer}{seq}", received_at=f"2026-11-21T01:02:0{second}.000Z"
        ),
        producer,
        1,
        seq,
    ),
    st.sampled_from("ab"),
    st.integers(0, 2),
    st.sampled_from(["put", "delete"]),
    st.sampled_from(["p", "q"]),
    st.integers(1, 3),
)


@given(st.lists(changes, max_size=12, unique_by=lambda record: record[1:]), st.randoms())
def test_the_latest_change_stays_in_any_order(records: list[Record], random: "st.randoms") -> None:  # type: ignore[valid-type]
    """By time, then by position; a change that arrives twice counts once."""
    table, other = ItemTable(), ItemTable()
    for record in records:
        table.apply(record)
    again = [*records, *records]
    random.shuffle(again)  # type: ignore[attr-defined]
    for record in again:
        other.apply(record)
    lines = b"".join(encode(*record) for record in table.records())
    assert table.records() == other.records() == ItemTable.from_bytes(lines).records()
    for item in "ab":
        own = [record for record in records if record.event.item_id == item]  # type: ignore[union-attr]
        expected = max(own, key=lambda record: (record.event.received_at, *record[1:]), default=None)
        assert table.get(item) == (None if expected is None else expected.event)
    assert [change.item_id for change in table.changes()] == sorted({r.event.item_id for r in records})  # type: ignore[union-attr]


def test_a_change_that_is_not_the_last_one_changes_nothing() -> None:
    """And says so; an event of another class is ignored."""
    table = ItemTable()
    late, early = (
        Record(sample_events.item_change(received_at=f"2026-11-21T01:02:0{second}.000Z"), "p", 1, seq)
        for second, seq in ((5, 1), (4, 2))
    )
    assert [table.apply(record) for record in (late, early, late)] == [True, False, False]
    assert not table.apply(Record(sample_events.feedback(), "p", 1, 3))
    assert (len(table), table.revision) == (1, 1)
