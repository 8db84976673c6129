from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.audit.event_outline import EventOutline, GapCount
from telemetry.audit.reconciliation import EpochAccount, Reconciliation
from telemetry.audit.seq_runs import NOT_IN_FILES, NOT_IN_SPOOL, Hole, SeqState
from telemetry.catalogue.commit import Progress, RemovalReason, RemovedRun

PRODUCER = "p"
AT = "2026-11-21T01:02:03.456Z"
WHYS = get_args(RemovalReason)


def line(seq: int, **changes: Any) -> EventOutline:
    return EventOutline("feedback", "default", f"event-{seq}", None, AT, PRODUCER, 1, seq, None)._replace(**changes)


@dataclass
class History:
    """The fate of each number of one producer, from 1 on; the last ones may be in flight."""

    fates: list[str]
    lines: list[int] = field(default_factory=list)
    spooled: list[int] = field(default_factory=list)
    removed: list[tuple[int, Any]] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    watermark: int = 0

    def __post_init__(self) -> None:
        for seq, fate in enumerate(self.fates, 1):
            if fate == "in_flight":
                self.spooled.append(seq)
                continue
            self.watermark = seq
            self.counted[fate] += 1
            if fate == "archived":
                self.lines.append(seq)
            else:
                self.removed.append((seq, fate))

    def account(self) -> EpochAccount:
        reconciliation = Reconciliation()
        reconciliation.set_accepted(PRODUCER, 1, len(self.fates))
        for seq in self.spooled:
            reconciliation.add_spooled(line(seq))
        reconciliation.set_progress(PRODUCER, 1, Progress(self.watermark, **self.counted))
        for seq, why in self.removed:
            reconciliation.add_removed(RemovedRun(PRODUCER, 1, seq, seq, why, AT))
            if why == "dead_lettered":
                reconciliation.add_dead_letter(PRODUCER, 1, range(seq, seq + 1))
        for seq in self.lines:
            reconciliation.add_archived(line(seq))
        (account,) = reconciliation.accounts()
        return account


def fates(*kinds: str, least: int = 1) -> st.SearchStrategy[list[str]]:
    settled = st.lists(st.sampled_from(kinds), min_size=least, max_size=60)
    return st.builds(lambda done, flying: done + ["in_flight"] * flying, settled, st.integers(0, 10))


SOUND = fates("archived", "archived", "archived", "deduplicated", "dead_lettered", "erased")


@given(fates("archived", *WHYS))
def test_every_number_has_one_state(history: list[str]) -> None:
    """The counts are those of the history, they add up, and every missing number is named."""
    account = History(history).account()
    assert {state: count for state, count in account.counts.items() if count} == Counter(history)
    assert account.accepted == account.last_seq == len(history)
    assert account.breaches == ()
    missing = [seq for hole in account.holes for seq in range(hole.first_seq, hole.last_seq + 1)]
    assert missing == [seq for seq, fate in enumerate(history, 1) if fate == "missing"]


@given(SOUND, st.randoms(use_true_random=False))
def test_a_sound_history_has_no_breach(history: list[str], random: Any) -> None:
    """In any order of lines, and while the spool still holds archived events."""
    recorded = History(history)
    random.shuffle(recorded.lines)
    recorded.spooled = list(range(1, len(history) + 1))
    account = recorded.account()
    assert (account.counts["missing"], account.duplicated, account.breaches) == (0, 0, ())


@given(SOUND, st.data())
def test_a_lost_line_is_found(history: list[str], data: st.DataObject) -> None:
    """An archived line that is gone, and one that the spool lost before it was archived, are missing by number."""
    recorded = History(history)
    lost = data.draw(st.sampled_from([*recorded.lines, *recorded.spooled] or [0]))
    if not lost:
        return
    recorded.lines = [seq for seq in recorded.lines if seq != lost]
    recorded.spooled = [seq for seq in recorded.spooled if seq != lost]
    account = recorded.account()
    why = NOT_IN_SPOOL if lost > recorded.watermark else NOT_IN_FILES
    assert account.holes == (Hole(lost, lost, why),)
    assert account.counts["missing"] == 1
    assert bool(account.breaches) == (lost <= recorded.watermark)


@given(SOUND, st.data())
def test_a_duplicated_line_is_found(history: list[str], data: st.DataObject) -> None:
    """A number that is archived twice is counted once, and once too often."""
    recorded = History(history)
    if not recorded.lines:
        return
    twice = data.draw(st.sampled_from(recorded.lines))
    recorded.lines.insert(data.draw(st.integers(0, len(recorded.lines))), twice)
    account = recorded.account()
    assert account.duplicated == 1
    assert account.duplicates == (f"number {twice} is archived twice",)
    assert account.counts["archived"] == len(recorded.lines) - 1


@given(SOUND, st.sampled_from(["archived", "deduplicated", "dead_lettered", "erased", "missing"]), st.integers(-3, 3))
def test_a_wrong_count_is_found(history: list[str], state: str, by: int) -> None:
    """The catalogue's counts must be those of the lines."""
    recorded = History(history)
    recorded.counted[state] += by
    assert bool(recorded.account().breaches) == bool(by)


@given(SOUND, st.data())
def test_a_number_in_two_states_is_found(history: list[str], data: st.DataObject) -> None:
    """An archived line that is listed as removed, too."""
    recorded = History(history)
    if not recorded.lines:
        return
    seq = data.draw(st.sampled_from(recorded.lines))
    recorded.removed.append((seq, data.draw(st.sampled_from(["deduplicated", "erased"]))))
    assert any(f"number {seq} is" in breach and "at once" in breach for breach in recorded.account().breaches)


@given(SOUND)
def test_a_dead_letter_that_is_gone_is_found(history: list[str]) -> None:
    """A dead-lettered number needs a letter."""
    settled = [fate for fate in history if fate != "in_flight"]
    recorded = History([*settled, "dead_lettered"])
    reconciliation = Reconciliation()
    reconciliation.set_progress(PRODUCER, 1, Progress(recorded.watermark, **recorded.counted))
    for seq, why in recorded.removed:
        reconciliation.add_removed(RemovedRun(PRODUCER, 1, seq, seq, why, AT))
        if why == "dead_lettered" and seq != recorded.watermark:
            reconciliation.add_dead_letter(PRODUCER, 1, range(seq, seq + 1))
    for seq in recorded.lines:
        reconciliation.add_archived(line(seq))
    (account,) = reconciliation.accounts()
    assert account.breaches == (f"number {recorded.watermark} is dead-lettered, but there is no letter",)


def test_a_line_beyond_the_watermark_is_a_breach() -> None:
    """It was never committed, or the catalogue is an old copy."""
    recorded = History(["archived", "archived", "archived"])
    recorded.watermark, recorded.counted = 2, Counter(archived=2)
    assert recorded.account().breaches == ("number 3 is archived, but the catalogue's watermark is 2",)


def test_events_accepted_later_do_not_count() -> None:
    """A line that entered the spool after the slots were inspected is not lost."""
    reconciliation = Reconciliation()
    reconciliation.set_accepted(PRODUCER, 1, 2)
    for seq in (1, 2, 3):
        reconciliation.add_spooled(line(seq))
    (account,) = reconciliation.accounts()
    assert account.counts["in_flight"] == account.accepted == 2


def test_lost_returns_the_numbers_that_the_spool_should_hold() -> None:
    """Numbers above the watermark that were accepted and are not held; nothing below it."""
    reconciliation = Reconciliation()
    reconciliation.set_accepted(PRODUCER, 1, 6)
    reconciliation.set_progress(PRODUCER, 1, Progress(2))
    reconciliation.add_spooled(line(4))
    assert reconciliation.lost() == [Hole(3, 3, NOT_IN_SPOOL), Hole(5, 6, NOT_IN_SPOOL)]
    for seq in (3, 5, 6):
        reconciliation.add_spooled(line(seq))
    assert reconciliation.lost() == []


def test_a_huge_hole_costs_no_memory() -> None:
    """A writer to Redis can make a hole of any size; counting it takes no memory."""
    reconciliation = Reconciliation()
    top = 2**62
    reconciliation.set_progress(PRODUCER, 1, Progress(top, archived=1, missing=top - 1))
    reconciliation.add_removed(RemovedRun(PRODUCER, 1, 1, top - 1, "missing", None))
    reconciliation.add_archived(line(top))
    (account,) = reconciliation.accounts()
    assert (account.counts["missing"], account.counts["archived"], account.breaches) == (top - 1, 1, ())


class TestRange:
    def test_only_what_is_inside_is_counted_and_everything_is_balanced(self) -> None:
        """Three of ten lines are in the period; the others must exist all the same."""
        reconciliation = Reconciliation()
        reconciliation.set_progress(PRODUCER, 1, Progress(10, archived=10))
        for seq in range(1, 11):
            reconciliation.add_archived(line(seq), inside=4 <= seq <= 6)
        (account,) = reconciliation.accounts()
        assert (account.accepted, account.counts["archived"], account.breaches) == (3, 3, ())

    @pytest.mark.parametrize(("lost", "missing"), [(5, 1), (7, 1), (4, 0), (8, 0)])
    def test_a_hole_inherits_the_period_of_the_preceding_number(self, lost: int, missing: int) -> None:
        """It has no time of its own."""
        reconciliation = Reconciliation()
        reconciliation.set_progress(PRODUCER, 1, Progress(10, archived=9, missing=1))
        reconciliation.add_removed(RemovedRun(PRODUCER, 1, lost, lost, "missing", None), inside=None)
        for seq in range(1, 11):
            if seq != lost:
                reconciliation.add_archived(line(seq), inside=4 <= seq <= 6)
        (account,) = reconciliation.accounts()
        assert (account.counts["missing"], account.breaches) == (missing, ())

    def test_a_hole_at_the_beginning_has_the_period_of_the_next_number(self) -> None:
        """There is nothing before it."""
        reconciliation = Reconciliation()
        reconciliation.set_progress(PRODUCER, 1, Progress(2, archived=1, missing=1))
        reconciliation.add_removed(RemovedRun(PRODUCER, 1, 1, 1, "missing", None), inside=None)
        reconciliation.add_archived(line(2), inside=False)
        assert reconciliation.accounts()[0].accepted == 0

    @given(SOUND, st.data())
    def test_the_counts_of_two_periods_sum_to_the_whole(self, history: list[str], data: st.DataObject) -> None:
        """Ranges that touch share no event and leave none out."""
        cut = data.draw(st.integers(0, len(history)))
        halves: list[Mapping[SeqState, int]] = []
        for first_half in (True, False):
            recorded = History(history)
            reconciliation = Reconciliation()
            reconciliation.set_accepted(PRODUCER, 1, len(history))
            reconciliation.set_progress(PRODUCER, 1, Progress(recorded.watermark, **recorded.counted))
            for seq, why in recorded.removed:
                inside = (seq <= cut) == first_half
                reconciliation.add_removed(RemovedRun(PRODUCER, 1, seq, seq, why, AT), inside=inside)
            for seq in recorded.lines:
                reconciliation.add_archived(line(seq), inside=(seq <= cut) == first_half)
            for seq in recorded.spooled:
                reconciliation.add_spooled(line(seq), inside=(seq <= cut) == first_half)
            halves.append(reconciliation.accounts()[0].counts)
        assert {state: halves[0][state] + halves[1][state] for state in halves[0]} == History(history).account().counts


class TestGaps:
    def test_drops_and_refusals_are_summed_with_what_is_not_recorded_yet(self) -> None:
        """Records from the archive and from the spool count once each, by number."""
        reconciliation = Reconciliation()
        reconciliation.set_accepted(PRODUCER, 1, 4)
        reconciliation.set_progress(PRODUCER, 1, Progress(2, archived=2))
        drop, refusal = GapCount("served", "no budget", 7), GapCount("feedback", "disk", 2)
        for seq, gap in ((1, drop), (2, refusal)):
            reconciliation.add_archived(line(seq, of_class="system", gap=gap))
        for seq, gap in ((2, refusal), (3, drop), (4, drop)):
            reconciliation.add_spooled(line(seq, of_class="system", gap=gap))
        reconciliation.add_unrecorded(PRODUCER, 1, {"served": 5, "feedback": 1})
        (account,) = reconciliation.accounts()
        assert (account.dropped, account.refused) == (26, 3)
        assert account.gaps == (GapCount("feedback", "disk", 2), GapCount("served", "no budget", 21))

    def test_damage_counts_as_missing_once(self) -> None:
        """Whether or not it left a hole: the record and the hole stand for the same events."""
        reconciliation = Reconciliation()
        damage = GapCount(None, "damage in a segment", 3)
        reconciliation.set_progress(PRODUCER, 1, Progress(4, archived=2, missing=2))
        reconciliation.add_removed(RemovedRun(PRODUCER, 1, 2, 3, "missing", AT))
        reconciliation.add_archived(line(1))
        reconciliation.add_archived(line(4, of_class="system", gap=damage))
        (account,) = reconciliation.accounts()
        assert (account.counts["missing"], account.accepted, account.breaches) == (3, 5, ())

    def test_damage_is_recorded_in_a_later_epoch(self) -> None:
        """The hole is in the epoch that was damaged, the record in the one that found it."""
        reconciliation = Reconciliation()
        reconciliation.set_progress(PRODUCER, 1, Progress(3, archived=1, missing=2))
        reconciliation.add_removed(RemovedRun(PRODUCER, 1, 2, 3, "missing", AT))
        reconciliation.add_archived(line(1))
        reconciliation.set_progress(PRODUCER, 2, Progress(1, archived=1))
        reconciliation.add_archived(line(1, epoch=2, of_class="system", gap=GapCount(None, "damage in a segment", 2)))
        assert [account.counts["missing"] for account in reconciliation.accounts()] == [2, 0]
