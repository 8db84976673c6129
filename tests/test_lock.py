"""requirements.lock is complete on its own: what `make setup` installs without resolving anything fits together.

Read from the metadata of the installed distributions, so that no network is needed. The lock has some packages for
other Python versions only; what those require is in tests/golden/lock-requirements.json, which must name each of them.
"""

import functools
import importlib.metadata
import importlib.util
import json
import re
import tomllib
from collections import deque
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
# What the extras `deep` and `ann` add, but PyTorch.
DEEP_LOCK = ROOT / "requirements-deep.lock"
# Requirements by "name==version", of the locked packages that not every Python installs.
RECORDED = ROOT / "tests" / "golden" / "lock-requirements.json"
# What the extra `cluster` adds.
CLUSTER_LOCK = ROOT / "requirements-cluster.lock"
EXTRAS = ("embedded", "train", "dev")
DEEP_EXTRAS = ("deep", "ann")
# The first and a late release of each: some packages are needed before a patch release only.
PYTHONS = ("3.11.2", "3.11.14", "3.12.1", "3.12.12", "3.13.0", "3.13.9", "3.14.0")
MACHINES = ("x86_64", "aarch64")


class Locked(NamedTuple):
    name: str
    version: str
    marker: Marker | None
    hashes: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.name}=={self.version}"


def parsed(text: str) -> list[Locked]:
    """Read a lock: `name==version ; marker`, and the hashes on lines that continue it."""
    rows = []
    for entry in re.split(r"\n(?=\S)", re.sub(r"^\s+#.*\n?", "", text, flags=re.MULTILINE).strip()):
        head, *rest = re.split(r"\s*\\\n\s*", entry.strip())
        requirement = Requirement(head)
        (pin,) = requirement.specifier
        assert (pin.operator, requirement.extras, requirement.url) == ("==", set(), None), head
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in rest), head
        rows.append(Locked(canonicalize_name(requirement.name), pin.version, requirement.marker, tuple(rest)))
    return rows


def environment(python: str, machine: str) -> dict[str, str]:
    """Return what markers are evaluated against on Linux with this Python and machine."""
    own = {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": "linux",
    }
    return {**{name: str(value) for name, value in default_environment().items()}, **own}


def requirements_of(row: Locked, recorded: dict[str, list[str]]) -> list[Requirement]:
    """Return what a locked version requires: as recorded, or as its installed distribution says."""
    if row.key in recorded:
        return [Requirement(text) for text in recorded[row.key]]
    return [Requirement(text) for text in importlib.metadata.requires(row.name) or ()]


def faults(lock: list[Locked], roots: list[str], recorded: dict[str, list[str]], env: dict[str, str]) -> list[str]:
    """Return what is missing, of the wrong version or locked twice in one environment; and what nothing requires."""
    chosen: dict[str, Locked] = {}
    found: list[str] = []
    for row in lock:
        if row.marker is None or row.marker.evaluate({**env, "extra": ""}):
            if row.name in chosen:
                found.append(f"{row.name} is locked twice")
            chosen[row.name] = row
    wanted: deque[tuple[str, Requirement, str]] = deque(("recollect", Requirement(text), "") for text in roots)
    seen: set[tuple[str, str]] = set()
    while wanted:
        by, requirement, extra = wanted.popleft()
        if requirement.marker is not None and not requirement.marker.evaluate({**env, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        locked = chosen.get(name)
        if locked is None:
            found.append(f"{by} requires {requirement}, which is not locked")
            continue
        if not requirement.specifier.contains(locked.version, prereleases=True):
            found.append(f"{by} requires {requirement}, but {locked.version} is locked")
        for asked in ("", *sorted(requirement.extras)):
            if (name, asked) not in seen:
                seen.add((name, asked))
                wanted.extend((name, each, asked) for each in requirements_of(locked, recorded))
    found.extend(f"nothing requires {name}" for name in sorted(set(chosen) - {name for name, _ in seen}))
    return found


@functools.cache
def locked() -> list[Locked]:
    return parsed(LOCK.read_text(encoding="utf-8"))


@functools.cache
def deeply_locked() -> list[Locked]:
    return parsed(DEEP_LOCK.read_text(encoding="utf-8"))


@functools.cache
def cluster_locked() -> list[Locked]:
    return parsed(CLUSTER_LOCK.read_text(encoding="utf-8"))


@functools.cache
def recorded() -> dict[str, list[str]]:
    requirements: dict[str, list[str]] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return requirements


def roots(extras: tuple[str, ...] = EXTRAS) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(text for extra in extras for text in optional[extra])]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_of_every_locked_package_is_locked(python: str, machine: str) -> None:
    """Extras and markers included, and in a version that it accepts; nothing is locked twice or for nothing."""
    assert faults(locked(), roots(), recorded(), environment(python, machine)) == []


def test_what_is_installed_is_what_is_locked() -> None:
    """So the metadata above is that of the locked versions; a package for other Pythons has its requirements recorded.

    A record may leave out what extras that nothing here asks for would bring.
    """
    for row in locked():
        try:
            installed = importlib.metadata.version(row.name)
        except importlib.metadata.PackageNotFoundError:
            installed = None
        if installed != row.version:
            assert row.marker is not None, f"{row.key} is locked for every Python, and {installed} is installed"
            assert row.key in recorded(), f"record what {row.key} requires in {RECORDED.name}"
        elif row.key in recorded():
            required = importlib.metadata.requires(row.name) or []
            kept, plain = set(recorded()[row.key]), {text for text in required if "extra ==" not in text}
            assert plain <= kept <= set(required), row.key


@pytest.mark.parametrize("python", PYTHONS)
def test_every_locked_package_runs_on_every_python(python: str) -> None:
    """As far as the installed distributions say."""
    env = environment(python, "x86_64")
    for row in locked():
        if row.marker is None or row.marker.evaluate({**env, "extra": ""}):
            try:
                distribution = importlib.metadata.distribution(row.name)
            except importlib.metadata.PackageNotFoundError:
                continue
            (accepted,) = map(SpecifierSet, distribution.metadata.get_all("Requires-Python") or [""])
            assert distribution.version != row.version or accepted.contains(python), row.key


def test_nothing_is_recorded_that_is_not_locked() -> None:
    """A record that outlived its lock would hide what the new version requires."""
    assert set(recorded()) <= {row.key for row in (*locked(), *deeply_locked(), *cluster_locked())}


def test_every_locked_package_has_hashes() -> None:
    """pip refuses the whole file otherwise. What has machine code has more than one: a wheel for each machine."""
    for row in (*locked(), *deeply_locked(), *cluster_locked()):
        assert row.hashes, row.key
        assert len(set(row.hashes)) == len(row.hashes), row.key
        if is_compiled(row):
            assert len(row.hashes) >= len(MACHINES), row.key


def is_compiled(row: Locked) -> bool:
    """Whether the installed wheel is for one machine only."""
    try:
        distribution = importlib.metadata.distribution(row.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    tags = re.findall(r"^Tag: \S+-\S+-(\S+)$", distribution.read_text("WHEEL") or "", re.MULTILINE)
    return any(tag != "any" for tag in tags)


@pytest.mark.parametrize("lock", [LOCK, DEEP_LOCK, CLUSTER_LOCK], ids=lambda path: path.name)
def test_the_lock_names_no_index(lock: Path) -> None:
    """An installation uses the index that the local pip is set up for."""
    assert not re.search(r"^\s*(--(extra-)?index-url|--find-links|-[if]\b)|https?://", lock.read_text(), re.MULTILINE)


@pytest.mark.parametrize("python", PYTHONS)
def test_both_locks_hold_what_the_deep_extras_require(python: str) -> None:
    """PyTorch apart, whose build is the choice of the local pip: its GPU build alone requires what no lock has."""
    assert not {row.name for row in locked()} & {row.name for row in deeply_locked()}
    torch = Locked("torch", "2.13.0", None, ())
    plain = pytest.importorskip("torch") and [
        text for text in importlib.metadata.requires("torch") or [] if not re.match(r"nvidia|triton|cuda", text)
    ]
    known = recorded() | {torch.key: plain}
    lock = [*locked(), *deeply_locked(), torch]
    assert faults(lock, roots((*EXTRAS, *DEEP_EXTRAS)), known, environment(python, "x86_64")) == []


@pytest.mark.parametrize("python", PYTHONS)
def test_both_locks_hold_what_the_cluster_extra_requires(python: str) -> None:
    """No package in both, and nothing of what Ray requires for itself is missing."""
    # Without an import, with which Ray reads its settings before a test that has others.
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: make cluster")
    assert not {row.name for row in locked()} & {row.name for row in cluster_locked()}
    lock = [*locked(), *cluster_locked()]
    assert faults(lock, roots((*EXTRAS, "cluster")), recorded(), environment(python, "x86_64")) == []


def test_every_python_that_we_name_is_covered() -> None:
    """Those of pyproject's classifiers, and the least one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {text.split(" :: ")[-1] for text in project["classifiers"] if re.search(r"Python :: 3\.\d+$", text)}
    assert named <= {python.rpartition(".")[0] for python in PYTHONS}
    assert all(SpecifierSet(project["requires-python"]).contains(python) for python in PYTHONS)


ROTTEN = """\
pytest-cov==7.1.0 \\
    --hash=sha256:{0}
coverage==7.17.3 ; python_full_version < '3.12' \\
    --hash=sha256:{0}
    # via pytest-cov
stray==1.0 \\
    --hash=sha256:{0}
""".format("0" * 64)


def test_a_lock_that_rots_is_found_out() -> None:
    """A missing package, a version that is not accepted, one that an extra needs, and one that nothing needs."""
    known = {
        "pytest-cov==7.1.0": ["coverage[toml]>=7.10.6", "pluggy>=1.2; extra == 'never'"],
        "coverage==7.17.3": [
            "tomli; python_full_version <= '3.11.0a6' and extra == 'toml'",
            "lost>=2; extra == 'toml'",
        ],
        "stray==1.0": [],
    }
    assert faults(parsed(ROTTEN), ["pytest-cov>=8"], known, environment("3.11.7", "x86_64")) == [
        "recollect requires pytest-cov>=8, but 7.1.0 is locked",
        'coverage requires lost>=2; extra == "toml", which is not locked',
        "nothing requires stray",
    ]
    assert faults(parsed(ROTTEN), ["pytest-cov>=7", "stray"], known, environment("3.12.1", "x86_64")) == [
        "pytest-cov requires coverage[toml]>=7.10.6, which is not locked"
    ]
