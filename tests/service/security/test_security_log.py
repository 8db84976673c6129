"""The security log: whole lines of several processes, and a slow disk that blocks no request."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.security.security_log import SecurityLog, append, new_entry


def lines(directory: Path) -> list[dict[str, Any]]:
    return [
        orjson.loads(line) for path in sorted(directory.glob("log-*.jsonl")) for line in path.read_bytes().splitlines()
    ]


def test_an_entry_has_action_process_and_time(tmp_path: Path) -> None:
    """In a private file of this month."""
    append(tmp_path / "security", [new_entry("erase", by="replica-0", key="0123abcd", erase_id="e1")])
    (path,) = (tmp_path / "security").iterdir()
    assert path.name == time.strftime("log-%Y-%m.jsonl", time.gmtime())
    assert [stat.S_IMODE(one.stat().st_mode) for one in (path.parent, path)] == [0o700, 0o600]
    (line,) = lines(path.parent)
    assert line["at"].endswith("Z")
    del line["at"]
    assert line == {"what": "erase", "by": "replica-0", "uid": os.getuid(), "key": "0123abcd", "erase_id": "e1"}


def test_a_cut_entry_does_not_damage_the_next(tmp_path: Path) -> None:
    """A full disk leaves half a line; the next entry begins a new line."""
    append(tmp_path, [new_entry("activate", by="a", key=None)])
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(b'{"at": "20')
    append(tmp_path, [new_entry("activate", by="b", key=None)])
    first, cut, last = path.read_bytes().splitlines()
    assert (orjson.loads(first)["by"], cut, orjson.loads(last)["by"]) == ("a", b'{"at": "20', "b")


def test_entries_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    """Each line is one whole entry."""
    program = (
        "import sys; from pathlib import Path; from service.security.security_log import append, new_entry\n"
        "for n in range(25):\n"
        "    append(Path(sys.argv[1]), [new_entry('erase', by=sys.argv[2], key=None, n=n, pad='x' * 5000)])"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(name)]) for name in range(3)]
    assert [process.wait(timeout=60) for process in running] == [0] * 3
    found = [(line["by"], line["n"]) for line in lines(tmp_path)]
    assert sorted(found) == [(str(name), n) for name in range(3) for n in range(25)]


async def test_record_returns_once_the_entry_is_on_the_disk(tmp_path: Path) -> None:
    """And raises if the log cannot be written."""
    security = SecurityLog(tmp_path / "security")
    await security.record(new_entry("erase", by="replica-0", key=None), deadline_s=10)
    assert len(lines(tmp_path / "security")) == 1
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        await SecurityLog(tmp_path / "file" / "security").record(new_entry("erase", by="x", key=None), deadline_s=10)


async def test_a_hanging_disk_is_a_timeout(tmp_path: Path) -> None:
    """The event loop runs on, and a late write changes no answer."""
    reading, writing = os.pipe()
    written: list[int] = []

    def hang(_directory: Path, entries: Sequence[dict[str, Any]]) -> None:
        os.read(reading, 1)
        written.append(len(entries))

    security = SecurityLog(tmp_path, hang)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await security.record(new_entry("erase", by="x", key=None), deadline_s=0.01)
    os.write(writing, b"x" * 3)
    await security.record(new_entry("erase", by="x", key=None), deadline_s=10)
    assert sum(written) == 3
    os.close(writing)
