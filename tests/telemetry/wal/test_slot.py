import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry.batch import Position
from telemetry.errors import SlotTakenError, SpoolError
from telemetry.wal.disk import RealDisk
from telemetry.wal.slot import Slot, is_held
from telemetry.wal.slot_identity import IDENTITY_FILE, SlotIdentity, decode_identity, encode_identity

# Run as root of a namespace of its own, so that a small disk can be mounted and filled.
FULL_DISK = """
import errno, pathlib, subprocess, sys
from telemetry.wal.slot import Slot
from telemetry.wal.slot_identity import IDENTITY_FILE, SlotIdentity

root = pathlib.Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(root)], check=True)
slot = Slot.open(root, 0)
slot.save(SlotIdentity("p", 1))
inode = (root / "0" / IDENTITY_FILE).stat().st_ino
try:
    with (root / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
except OSError as error:
    assert error.errno == errno.ENOSPC
slot.save(SlotIdentity("p", 2, True, {("p", 1): 7}))
assert (root / "0" / IDENTITY_FILE).stat().st_ino == inode
slot.close()
slot = Slot.open(root, 0)
assert slot.identity == SlotIdentity("p", 2, True, {("p", 1): 7})
assert sorted(path.name for path in (root / "0").iterdir()) == ["lock", IDENTITY_FILE]
print("done")
"""


def test_the_next_holder_finds_the_identity(tmp_path: Path) -> None:
    """A new slot has none; a saved one survives without closing the slot."""
    first = Slot.open(tmp_path, 0)
    assert (first.identity, first.is_new) == (None, True)
    known = SlotIdentity("p", 3, True, {("p", 1): 5, ("q", 2): 7}, ("q", 4), ("a.wal", "b.wal"))
    first.save(known)
    assert first.identity == known
    first.close()
    second = Slot.open(tmp_path, 0)
    assert (second.identity, second.is_new) == (known, False)
    second.close()
    assert repr(second).startswith("<Slot 0 closed SlotIdentity(producer='p', epoch=3")


def test_two_openings_get_two_slots_and_the_same_one_is_refused(tmp_path: Path) -> None:
    """A slot has one holder; without a number the lowest free one is opened."""
    first, second = Slot.open(tmp_path, None), Slot.open(tmp_path, None)
    assert (first.number, second.number) == (0, 1)
    with pytest.raises(SlotTakenError, match="Slot 1"):
        Slot.open(tmp_path, 1)
    first.close()
    third = Slot.open(tmp_path, None)
    assert third.number == 0
    second.close()
    third.close()


def test_a_process_that_died_leaves_the_slot_free(tmp_path: Path) -> None:
    """The kernel frees the lock with the process."""
    code = "import os, sys, pathlib; from telemetry.wal.slot import Slot\n"
    code += "slot = Slot.open(pathlib.Path(sys.argv[1]), 0); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[3], timeout=60)
    assert not is_held(tmp_path / "0")
    Slot.open(tmp_path, 0).close()


def test_whether_a_slot_is_held_can_be_seen_from_outside(tmp_path: Path) -> None:
    """The look does not disturb the holder."""
    assert not is_held(tmp_path / "0")
    slot = Slot.open(tmp_path, 0)
    assert is_held(tmp_path / "0")
    slot.close()
    slot.close()
    assert not is_held(tmp_path / "0")


def test_opening_waits_for_a_short_holder(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """Opening waits for a slot that is held for a moment; without success it raises SlotTakenError."""
    held = Slot.open(tmp_path, 0)
    with pytest.raises(SlotTakenError):
        Slot.open(tmp_path, 0, patience_s=0.1)
    opened: list[Slot] = []
    waiter = threading.Thread(target=lambda: opened.append(Slot.open(tmp_path, 0, patience_s=30)))
    waiter.start()
    held.close()
    wait_until(lambda: opened)
    waiter.join()
    opened[0].close()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"producer": "p", "epoch": 0, "clean": true}',
        b'{"producer": "", "epoch": 1, "clean": true}',
        b'{"producer": "p", "epoch": 1, "clean": true, "ended": [1]}',
        b'{"producer": "p", "epoch": 1, "clean": true, "moving": "x"}',
        b"\x00" * 64,
    ],
)
def test_a_damaged_identity_is_unknown(tmp_path: Path, content: bytes) -> None:
    """An unreadable identity is None, and the slot does not count as new."""
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / IDENTITY_FILE).write_bytes(content)
    slot = Slot.open(tmp_path, 0)
    assert (slot.identity, slot.is_new) == (None, False)
    slot.close()


def test_an_identity_of_an_older_version_is_read() -> None:
    """It has no ended epochs."""
    assert decode_identity(b'{"producer":"p","epoch":4,"clean":true}') == SlotIdentity("p", 4, True)


def test_an_identity_takes_one_block() -> None:
    """So it can be overwritten in place; the oldest epochs are dropped first."""
    known = SlotIdentity("0" * 36, 1)
    for epoch in range(1, 200):
        known = known.with_ended("0" * 36, 10**6 + epoch, 10**10)
    assert list(known.ended)[-1] == ("0" * 36, 10**6 + 199)
    known = SlotIdentity("0" * 36, 10**6, False, known.ended, ("1" * 36, 10**6), ("0000000001-000000000001.wal",) * 20)
    assert len(encode_identity(known)) == len(encode_identity(SlotIdentity("p", 1))) == 4096
    assert decode_identity(encode_identity(known)) == known


def test_the_last_number_of_an_epoch_only_grows_unless_its_events_are_renumbered() -> None:
    """An epoch without events is not kept; a renumbering cuts the numbers beyond its position."""
    known = SlotIdentity("p", 9).with_ended("p", 1, 5).with_ended("p", 1, 3).with_ended("p", 2, 0).with_ended("q", 8, 4)
    assert known.ended == {("p", 1): 5, ("q", 8): 4}
    known = known.with_ended("p", 3, 9).with_ended("p", 4, 2)
    assert known.with_renumbered(Position(3, 6)).ended == {("p", 1): 5, ("q", 8): 4, ("p", 3): 6}
    assert known.with_renumbered(Position(3, 0)).ended == {("p", 1): 5, ("q", 8): 4}
    # An epoch that the slot never had belongs to another writer.
    assert known.with_renumbered(Position(7, 9)).ended == known.ended


def test_on_a_full_disk_the_identity_is_overwritten_in_place(tmp_path: Path) -> None:
    """Without room for a second file the identity is saved, and no half file is left behind."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    argv = ["unshare", "-rm", sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(argv, cwd=Path(__file__).parents[3], timeout=60, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr


def test_a_refused_save_keeps_the_old_identity(tmp_path: Path) -> None:
    """If the disk refuses after the file was replaced, the old identity is restored."""

    class Refusing(RealDisk):
        refuses = False

        def sync_directory(self, path: Path) -> None:
            if self.refuses:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            super().sync_directory(path)

    disk = Refusing()
    slot = Slot.open(tmp_path, 0, disk)
    slot.save(SlotIdentity("p", 1))
    disk.refuses = True
    with pytest.raises(OSError, match="Input/output"):
        slot.save(SlotIdentity("p", 2))
    assert slot.identity == SlotIdentity("p", 1)
    slot.close()
    slot = Slot.open(tmp_path, 0)
    assert slot.identity == SlotIdentity("p", 1)
    slot.close()


def test_an_unusable_directory_is_a_spool_error(tmp_path: Path) -> None:
    """A file instead of the spool, or a directory instead of the identity, raises SpoolError."""
    (tmp_path / "spool").write_text("")
    with pytest.raises(SpoolError, match="cannot be used"):
        Slot.open(tmp_path / "spool", 0)
    (tmp_path / "0" / IDENTITY_FILE).mkdir(parents=True)
    with pytest.raises(SpoolError, match="cannot be used"):
        Slot.open(tmp_path, 0)
    assert not is_held(tmp_path / "0")
