import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.drill.faults.fault import SystemKind
from ops.drill.faults.fault_catalogue import ELSEWHERE, FAULTS, MAIN, QUICK, select
from ops.drill.schedule import schedule_injections
from ops.drill.system.needs import RunningParts
from service.errors import UsageError

_PARTS = RunningParts(("replica-0", "replica-1", "replica-2"), ("nginx-0", "nginx-1"), redis=True, consumer=True)
_NAMES = {*_PARTS.replicas, *_PARTS.balancers, "nginx-0/worker", "nginx-1/worker", "redis", "consumer"}


@given(
    st.sampled_from(FAULTS),
    st.floats(0.5, 600),
    st.none() | st.floats(0.2, 60),
    st.integers(0, 2**32),
)
def test_a_schedule_fits_its_round(fault: object, duration_s: float, every_s: float | None, seed: int) -> None:
    """The same seed repeats it; injections are in order, do not overlap, hit existing parts, and end in time."""
    found = schedule_injections(fault, _PARTS, duration_s, every_s, seed)  # type: ignore[arg-type]  # hypothesis has no type for it
    assert found == schedule_injections(fault, _PARTS, duration_s, every_s, seed)  # type: ignore[arg-type]
    assert found
    for injection in found:
        assert 0 <= injection.at_s <= duration_s
        assert injection.at_s + injection.hold_s <= duration_s
        assert set(injection.targets) <= _NAMES
        assert 0 <= injection.draw <= 1
    for one, following in pairwise(found):
        assert one.at_s + one.hold_s <= following.at_s


def test_another_seed_gives_another_schedule() -> None:
    """Thirty kills do not coincide by chance."""
    (fault,) = select("kill-any")
    assert schedule_injections(fault, _PARTS, 60, 2, 1) != schedule_injections(fault, _PARTS, 60, 2, 2)


def test_kills_reach_every_part_in_time() -> None:
    """R1 covers every part."""
    (fault,) = select("kill-any")
    assert {
        target for injection in schedule_injections(fault, _PARTS, 300, 2, 7) for target in injection.targets
    } == _NAMES


def test_a_fault_without_targets_has_no_injections() -> None:
    """The drill reports it as skipped."""
    (fault,) = select("kill-consumer")
    assert (
        schedule_injections(fault, RunningParts(("replica-0",), ("nginx-0",), redis=False, consumer=False), 30, None, 1)
        == []
    )


def test_names_and_rows_select_from_the_catalogue() -> None:
    """In the order of the catalogue, each fault once."""
    assert [fault.name for fault in select("R9,kill-any, r9")] == ["kill-any", "kill-consumer", "consumer-zombie"]
    assert select("all") == list(FAULTS)
    assert {fault.name for fault in select("main")} == set(MAIN)
    assert {fault.name for fault in select("quick")} == set(QUICK)
    assert all(fault.kind is SystemKind.DEFAULT for fault in select("quick"))
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("row", ELSEWHERE)
def test_a_row_of_no_live_drill_is_refused_with_the_tests_that_cover_it(row: str) -> None:
    with pytest.raises(UsageError, match="property tests"):
        select(row)


def test_an_unknown_fault_is_refused_with_the_known_names() -> None:
    with pytest.raises(UsageError, match=r"no 'meteor'.*kill-any"):
        select("kill-any,meteor")


def test_the_page_about_drills_matches_the_catalogue() -> None:
    """In name, row, title and promise."""
    page = (Path(__file__).parents[3] / "docs" / "drills.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if re.match(r"\| `[a-z-]+` \| R\d+ \|", line)]
    assert lines == [f"| `{f.name}` | {f.row} | {f.title} | {f.promise.text} |" for f in FAULTS]
