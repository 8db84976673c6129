import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from telemetry.batch import Position
from telemetry.errors import KeyFileError
from telemetry.stream.watermark_seal import FIELDS, KEY_FILE, Seal, VerifiedWatermark, load_or_create_key

SEAL = Seal(b"k" * 32)
PLACE = Position(3, 9)


def read(seal: Seal, producer: str, fields: dict[str, str]) -> VerifiedWatermark:
    """Read fields as they come from Redis."""
    given = [fields.get(name) for name in FIELDS]
    return seal.verify(producer, *(None if value is None else value.encode() for value in given))


def test_a_watermark_is_read_as_it_was_sealed() -> None:
    """With the same key, and by the same producer."""
    fields = SEAL.sealed_fields("p", PLACE)
    assert (fields["epoch"], fields["seq"]) == ("3", "9")
    assert read(Seal(b"k" * 32), "p", fields) == (PLACE, None)
    assert read(SEAL, "p", {}) == (None, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seq": "10"}, "forged"),
        ({"epoch": "4"}, "forged"),
        ({"mac": "0" * 32}, "forged"),
        ({"mac": ""}, "forged"),
        ({"seq": "09", "epoch": "x"}, "no position"),
        ({"seq": "-1"}, "no position"),
        ({"seq": str(2**64)}, "no position"),
        ({"key": "00000000"}, "copy the consumer's key file here"),
        ({"key": None}, "no seal"),
        ({"mac": None}, "no seal"),
        ({"epoch": None}, "no position"),
    ],
)
def test_a_changed_watermark_is_rejected(change: dict[str, str | None], reason: str) -> None:
    """The doubt names the reason."""
    fields = {name: value for name, value in {**SEAL.sealed_fields("p", PLACE), **change}.items() if value is not None}
    place, doubt = read(SEAL, "p", fields)
    assert place is None
    assert reason in (doubt or "")


def test_a_seal_holds_for_one_producer_and_one_key() -> None:
    """A watermark of another producer or of another installation is rejected."""
    assert "forged" in (read(SEAL, "q", SEAL.sealed_fields("p", PLACE)).doubt or "")
    other = Seal(b"o" * 32)
    assert other.name != SEAL.name
    assert "copy" in (read(other, "p", SEAL.sealed_fields("p", PLACE)).doubt or "")
    # Also one that only names this installation's key.
    assert "forged" in (read(other, "p", {**SEAL.sealed_fields("p", PLACE), "key": other.name}).doubt or "")


def test_the_key_is_created_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    """With any umask, and with several processes at once."""
    path = tmp_path / "archive" / KEY_FILE
    code = "import os, sys, pathlib; os.umask(0); from telemetry.stream.watermark_seal import load_or_create_key\n"
    code += "sys.stdin.read(); print(load_or_create_key(pathlib.Path(sys.argv[1])).hex())"
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path.parent)],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    made = {process.communicate("", timeout=60)[0].strip() for process in racing}
    assert made == {load_or_create_key(path.parent).hex()}
    assert len(load_or_create_key(path.parent)) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert [made.name for made in path.parent.iterdir()] == ["watermark.key"]


def test_processes_of_one_number_create_one_key(tmp_path: Path) -> None:
    """In containers that share an archive, every process is number 1, as all threads of this one have its number."""
    with ThreadPoolExecutor(8) as pool:
        for number in range(50):
            keys = list(pool.map(lambda _: load_or_create_key(tmp_path / str(number)), range(8)))  # noqa: B023
            assert len(set(keys)) == 1
            assert [path.name for path in (tmp_path / str(number)).iterdir()] == [KEY_FILE]


def test_a_key_that_other_users_may_read_is_refused(tmp_path: Path) -> None:
    """The error names the file and the remedy; so does one of a file that cannot be created."""
    load_or_create_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    with pytest.raises(KeyFileError, match=r"watermark key file .* chmod 600"):
        load_or_create_key(tmp_path)
    with pytest.raises(KeyFileError, match="cannot be made"):
        load_or_create_key(tmp_path / KEY_FILE / "below")


def test_a_replaced_key_is_read_again(tmp_path: Path) -> None:
    """As for an archive that was begun anew; an unreadable key leaves the seal as it is."""
    seal = Seal(load_or_create_key(tmp_path), lambda: load_or_create_key(tmp_path))
    assert seal.reloaded().name == seal.name
    (tmp_path / KEY_FILE).unlink()
    newer = Seal(load_or_create_key(tmp_path))
    assert not seal.has_key_of(newer.name.encode())
    assert seal.reloaded().name == newer.name
    (tmp_path / KEY_FILE).chmod(0o644)
    assert seal.reloaded().name == seal.name
    assert Seal(b"k" * 32).reloaded().name == SEAL.name
