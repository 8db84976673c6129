"""The limit of open files is raised where that is allowed, and reported where it is not."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("soft", "hard", "then", "warns"), [(256, 8192, 4096, False), (64, 64, 64, True), (1024, 2048, 2048, False)]
)
def test_the_soft_limit_is_raised_to_the_hard_limit_at_most(soft: int, hard: int, then: int, warns: bool) -> None:
    """In a process of its own, whose limits cannot be raised again."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip("the limit of this machine is lower")
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "from ops.checks.open_files import raise_soft_limit\nprint(raise_soft_limit())\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    sentence, limit = done.stdout.splitlines()
    assert int(limit) == then
    assert sentence.startswith(f"warning: only {then} files may be open at once") if warns else sentence == "None"
