"""Values of users are gone with their executor, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from service.executors.value_folder import value_folder

HOLDER = """
import sys
from pathlib import Path
from service.executors.value_folder import value_folder
with value_folder(Path(sys.argv[1])) as folder:
    (folder / "0.value").write_bytes(b"who saw what")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_killed_processes_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """A folder in use stays; one whose process was killed goes, also if it has no lock file yet."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        other = Path(holder.stdout.readline().strip())
        (tmp_path / "executor-none").mkdir()
        (tmp_path / "executor-none" / "0.value").touch()
        with value_folder(tmp_path) as own:
            assert sorted(tmp_path.glob("executor-*")) == sorted([own, other])
            assert (other / "0.value").exists()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert list(tmp_path.glob("executor-*")) == [other]
    with value_folder(tmp_path) as own:
        assert list(tmp_path.glob("executor-*")) == [own]
    assert list(tmp_path.glob("executor-*")) == []
