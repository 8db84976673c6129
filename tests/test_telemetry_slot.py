import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.errors import SlotTakenError, SpoolError
from telemetry.slot import Slot


def test_a_slot_keeps_its_producer_and_raises_its_epoch(tmp_path: Path) -> None:
    """Every opening is a new epoch of the same producer."""
    first = Slot.open(tmp_path, 0)
    producer = first.producer_id
    assert (first.epoch, first.was_clean) == (1, True)
    first.close(clean=True)
    second = Slot.open(tmp_path, 0)
    assert (second.producer_id, second.epoch, second.was_clean) == (producer, 2, True)
    second.close(clean=True)


def test_two_openings_get_two_slots_and_the_same_one_is_refused(tmp_path: Path) -> None:
    """A slot has one holder; who does not care which gets the lowest free one."""
    first, second = Slot.open(tmp_path, None), Slot.open(tmp_path, None)
    assert (first.number, second.number) == (0, 1)
    with pytest.raises(SlotTakenError, match="slot 1"):
        Slot.open(tmp_path, 1)
    first.close(clean=True)
    third = Slot.open(tmp_path, None)
    assert third.number == 0
    second.close(clean=True)
    third.close(clean=True)


def test_a_process_that_died_leaves_the_slot_free_and_unclean(tmp_path: Path) -> None:
    """The lock goes with the process, and the next holder learns that it did not finish."""
    code = "import os, sys, pathlib; from telemetry.slot import Slot\n"
    code += "slot = Slot.open(pathlib.Path(sys.argv[1]), 0); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[1], timeout=60)
    slot = Slot.open(tmp_path, 0)
    assert (slot.epoch, slot.was_clean) == (2, False)
    slot.close(clean=False)
    again = Slot.open(tmp_path, 0)
    assert again.was_clean is False
    again.close(clean=True)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"producer": "p", "epoch": 0, "clean": true}', b"\x00" * 64])
def test_a_damaged_identity_is_never_continued(tmp_path: Path, content: bytes) -> None:
    """Without a known past the slot becomes a new producer."""
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "producer.json").write_bytes(content)
    slot = Slot.open(tmp_path, 0)
    assert (slot.epoch, slot.was_clean, len(slot.producer_id)) == (1, False, 36)
    slot.close(clean=True)


def test_identity_changes_are_kept(tmp_path: Path) -> None:
    """A raised epoch and a new producer outlive the process."""
    slot = Slot.open(tmp_path, 0)
    slot.raise_epoch(7)
    assert slot.epoch == 8
    old = slot.producer_id
    slot.close(clean=True)
    slot = Slot.open(tmp_path, 0)
    assert (slot.producer_id, slot.epoch) == (old, 9)
    slot.renew()
    assert (slot.producer_id != old, slot.epoch) == (True, 1)
    new = slot.producer_id
    slot.close(clean=True)
    slot = Slot.open(tmp_path, 0)
    assert (slot.producer_id, slot.epoch) == (new, 2)
    slot.close(clean=True)


def test_an_unusable_directory_is_one_sentence(tmp_path: Path) -> None:
    """A file where the spool should be ends in our error, not in an OSError."""
    (tmp_path / "spool").write_text("")
    with pytest.raises(SpoolError, match="cannot be used"):
        Slot.open(tmp_path / "spool", 0)
