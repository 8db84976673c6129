import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.archive.archive_lock import try_lock
from telemetry.catalogue.lock_owners import exclusive_owners

_SCRIPT = """
import fcntl, sys
file = open(sys.argv[1], "r+")
getattr(fcntl, sys.argv[2])(file, getattr(fcntl, sys.argv[3]))
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "a file.lock"
    file.touch()
    return file


@pytest.fixture
def process(request: pytest.FixtureRequest, file: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that locks the file: the parameter says how."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(file), *request.param], stdin=-1, stdout=-1, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("process", [("lockf", "LOCK_EX"), ("flock", "LOCK_EX")], indirect=True)
def test_the_owner_of_an_exclusive_lock_is_named(process: subprocess.Popen[str], file: Path) -> None:
    """Of this file and of no other, and only while it lives."""
    other = file.with_name("other")
    other.touch()
    assert exclusive_owners([other, file.with_name("missing")]) == set()
    assert exclusive_owners([other, file]) == {process.pid}
    process.kill()
    process.wait()
    assert exclusive_owners([file]) == set()


@pytest.mark.parametrize("process", [("flock", "LOCK_SH")], indirect=True)
def test_shared_locks_and_own_locks_block_nothing_here(process: subprocess.Popen[str], file: Path) -> None:
    """Readers are not named, and neither is the process that asks."""
    assert process.poll() is None
    assert exclusive_owners([file]) == set()
    own = file.with_name("own")
    with try_lock(own):
        assert exclusive_owners([own]) == set()
