"""How much memory there is for a fit."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.errors import RunError
from service.training import memory_budget

ROOT = Path(__file__).resolve().parents[3]
MIB = 1 << 20


def machine(folder: Path, groups: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Lay out what the kernel would tell."""
    proc, cgroups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: {9000 * 1024} kB\nMemAvailable:   {8000 * 1024} kB\n")
    (proc / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        path = cgroups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc, cgroups


@pytest.mark.parametrize(
    ("groups", "files", "left_mib"),
    [
        ("", {}, 8000),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "5\n"}, 8000),
        ("0::/\n", {"memory.max": f"{500 * MIB}\n", "memory.current": f"{200 * MIB}\n"}, 300),
        (
            "0::/a/b\n",
            {
                "a/b/memory.max": "max\n",
                "a/b/memory.current": "5\n",
                "a/memory.max": f"{500 * MIB}\n",
                "a/memory.current": f"{200 * MIB}\n",
                "a/memory.stat": f"anon 7\ninactive_file {50 * MIB}\n",
            },
            350,
        ),
        # The host's path, of which a container sees only the root.
        ("0::/docker/4711\n", {"memory.max": f"{64 * MIB}\n", "memory.current": f"{65 * MIB}\n"}, 0),
        (
            "3:cpu:/x\n5:memory:/x\n",
            {
                "memory/x/memory.limit_in_bytes": f"{400 * MIB}\n",
                "memory/x/memory.usage_in_bytes": f"{100 * MIB}\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/memory.usage_in_bytes": "1\n",
            },
            300,
        ),
    ],
)
def test_the_least_of_machine_and_control_groups_counts(
    tmp_path: Path, groups: str, files: dict[str, str], left_mib: int
) -> None:
    """Version 1 and 2, at any height; pages of files that can go do not count as used."""
    assert memory_budget.available_bytes(*machine(tmp_path, groups, files)) == left_mib * MIB


def test_a_fit_without_room_is_refused_with_a_number_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it begins; what is small enough passes, as does what has no factors."""
    monkeypatch.setattr(memory_budget, "available_bytes", lambda: 1 << 30)
    memory_budget.require("svd", SimpleNamespace(n_factors=100), 1_000_000, 500_000, 10_000)
    memory_budget.require("baseline", SimpleNamespace(), 1_000_000, 500_000_000, 10_000)
    with pytest.raises(RunError, match=r"needs at least 3\.8 GiB .* may have 1\.0 GiB: .*n_factors=130\)"):
        memory_budget.require("svd", SimpleNamespace(n_factors=1000), 1_000_000, 500_000, 10_000)


def test_a_limit_of_address_space_is_a_sentence_before_the_fit(tmp_path: Path) -> None:
    """`ulimit -v` of a user, and a model that is larger: exit status 1 and no traceback."""
    program = (
        "import resource, sys; from ops.console.command_runner import exit_code_of\n"
        "from ops.commands.train import command\n"
        "import service.training.algorithms.svd\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1536 << 20, 1536 << 20))\n"
        "data, settings = ['demo:40000x500x80000'], ['n_factors=4096']\n"
        "sys.exit(exit_code_of(lambda: command(data=data, algorithm='svd', settings=settings)))"
    )
    argv = [sys.executable, "-c", program]
    done = subprocess.run(
        argv, cwd=ROOT, env={**os.environ, "RECOLLECT_HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "needs at least" in done.stderr.splitlines()[-1]
