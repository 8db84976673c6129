from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from telemetry.audit.duplicates import DuplicateFinder, IdHashes
from telemetry.audit.event_outline import EventOutline

AT = "2026-11-21T01:02:03.456Z"


def line(seq: int, **changes: Any) -> EventOutline:
    return EventOutline("feedback", "default", f"event-{seq}", None, AT, "p", 1, seq, None)._replace(**changes)


def found(*lines: EventOutline, days: int = 7) -> list[str]:
    ids = IdHashes()
    for one in lines:
        ids.add(one)
    suspects = ids.repeated()
    finder = DuplicateFinder(suspects, days)
    for one in lines:
        finder.add(one, inside=True)
    return [name for name, _ in finder.duplicates()]


def test_an_id_under_two_numbers_is_a_duplicate() -> None:
    """Feedback by (tenant, event_id), a served list by its id; another tenant or class is something else."""
    assert found(line(1), line(2), line(3, event_id="event-1")) == ["event-1"]
    assert found(line(1), line(2, event_id="event-1", tenant="other")) == []
    one = line(1, of_class="served", list_id="list-1")
    assert found(one, line(2, of_class="served", list_id="list-1")) == ["list-1"]
    assert found(one, line(2)) == []


def test_an_id_may_stand_for_several_events() -> None:
    """Of other users or other contents; each of them is archived once."""
    ones = [
        line(seq, event_id="event-1", content=content)
        for seq, content in enumerate([("u1", "click", "a"), ("u2", "click", "a"), ("u1", "click", "b")], 1)
    ]
    assert found(*ones) == []
    assert found(*ones, ones[2]._replace(seq=9)) == ["event-1"]


def test_the_same_number_twice_is_counted_elsewhere() -> None:
    """A copied line is one duplicate, not two."""
    assert found(line(1), line(1)) == []


def test_the_window() -> None:
    """An id that comes again after the window of deduplication is another event; a served list never is."""
    late = "2026-11-28T01:02:03.457Z"
    again = line(2, event_id="event-1", received_at=late)
    assert found(line(1), again) == []
    assert found(line(1), again, days=8) == ["event-1"]
    lists = [line(seq, of_class="served", event_id="l", list_id="l") for seq in (1, 2)]
    assert found(lists[0], lists[1]._replace(received_at=late)) == ["l"]


@given(st.lists(st.integers(0, 20), max_size=60))
def test_exactly_the_duplicates_are_found(names: list[int]) -> None:
    """Of an id that is there k times k - 1 are too many."""
    lines = [line(seq, event_id=f"id-{name}") for seq, name in enumerate(names, 1)]
    surplus = Counter(f"id-{name}" for name in names) - Counter({f"id-{name}": 1 for name in names})
    assert Counter(found(*lines)) == surplus
