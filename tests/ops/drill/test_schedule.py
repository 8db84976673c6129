import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.drill.faults.fault import Setting
from ops.drill.faults.fault_catalogue import ELSEWHERE, FAULTS, MAIN, QUICK, select
from ops.drill.needs import RunningParts
from ops.drill.schedule import strikes
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
    """The same seed gives the same one; strikes are in order, never overlap, hit parts that exist, and end in time."""
    found = strikes(fault, _PARTS, duration_s, every_s, seed)  # type: ignore[arg-type]  # hypothesis has no type for it
    assert found == strikes(fault, _PARTS, duration_s, every_s, seed)  # type: ignore[arg-type]
    assert found
    for strike in found:
        assert 0 <= strike.at_s <= duration_s
        assert strike.at_s + strike.hold_s <= duration_s
        assert set(strike.targets) <= _NAMES
        assert 0 <= strike.draw <= 1
    for one, following in pairwise(found):
        assert one.at_s + one.hold_s <= following.at_s


def test_another_seed_strikes_otherwise() -> None:
    """Thirty kills at the same times of the same parts by chance: never."""
    (fault,) = select("kill-any")
    assert strikes(fault, _PARTS, 60, 2, 1) != strikes(fault, _PARTS, 60, 2, 2)


def test_kills_reach_every_part_in_time() -> None:
    """R1 promises something about each of them."""
    (fault,) = select("kill-any")
    assert {target for strike in strikes(fault, _PARTS, 300, 2, 7) for target in strike.targets} == _NAMES


def test_a_fault_without_targets_has_no_strikes() -> None:
    """It is for the drill to say that it was skipped."""
    (fault,) = select("kill-consumer")
    assert strikes(fault, RunningParts(("replica-0",), ("nginx-0",), redis=False, consumer=False), 30, None, 1) == []


def test_names_and_rows_choose_from_the_catalogue() -> None:
    """Whatever the order of the words, the order is the catalogue's, and nothing comes twice."""
    assert [fault.name for fault in select("R9,kill-any, r9")] == ["kill-any", "kill-consumer", "consumer-zombie"]
    assert select("all") == list(FAULTS)
    assert {fault.name for fault in select("main")} == set(MAIN)
    assert {fault.name for fault in select("quick")} == set(QUICK)
    assert all(fault.setting is Setting.ANY for fault in select("quick"))
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("row", ELSEWHERE)
def test_a_row_that_no_live_drill_does_is_refused_with_the_place_where_it_is_done(row: str) -> None:
    with pytest.raises(UsageError, match="property tests"):
        select(row)


def test_an_unknown_fault_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"no 'meteor'.*kill-any"):
        select("kill-any,meteor")


def test_the_page_about_drills_names_every_fault_as_the_catalogue_does() -> None:
    """Name, row, what is done and what is promised."""
    page = (Path(__file__).parents[3] / "docs" / "drills.md").read_text(encoding="utf-8")
    told = [line for line in page.splitlines() if re.match(r"\| `[a-z-]+` \| R\d+ \|", line)]
    assert told == [f"| `{f.name}` | {f.row} | {f.title} | {f.promise.text} |" for f in FAULTS]
