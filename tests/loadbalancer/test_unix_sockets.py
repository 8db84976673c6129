"""Sockets are in directories that no other user can enter, on paths that fit into an address."""

import errno
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest

from loadbalancer import home, unix_sockets
from loadbalancer.errors import BadSetting


@pytest.fixture
def temporary(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory, empty."""
    directory = short_path / "t"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def _home(folder: Path, path_bytes: int) -> Path:
    """Return a home whose socket has a path of `path_bytes`."""
    missing = path_bytes - len(os.fsencode(folder / "h" / "run" / "s.sock"))
    return folder / ("h" + "x" * missing)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        return path.is_socket()


def test_a_socket_is_in_run_if_its_path_fits(short_path: Path, temporary: Path) -> None:
    """Up to the last byte; run/ becomes private."""
    where = _home(short_path, unix_sockets.PATH_LIMIT_BYTES)
    (where / "run").mkdir(parents=True, mode=0o777)
    path = unix_sockets.choose_path(where, "s.sock")
    assert (path.parent, len(os.fsencode(path))) == (where / "run", 107)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert unix_sockets.directory_outside(where) is None
    assert list(temporary.iterdir()) == []
    assert _listens(path)


def test_a_longer_path_is_replaced_by_a_private_temporary_directory(short_path: Path, temporary: Path) -> None:
    """The holder of the home removes it with its sockets."""
    where = _home(short_path, unix_sockets.PATH_LIMIT_BYTES + 1)
    with home.held(where):
        path = unix_sockets.choose_path(where, "s.sock")
        assert path.parent.parent == temporary
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert unix_sockets.directory_outside(where) == path.parent
        assert _listens(path)
    assert list(temporary.iterdir()) == []
    assert not (where / "run").exists()


def test_the_directory_of_a_killed_holder_is_removed_by_the_next(short_path: Path, temporary: Path) -> None:
    """A file in run/ names it."""
    where = _home(short_path, 200)
    first = unix_sockets.choose_path(where, "s.sock").parent
    second = unix_sockets.choose_path(where, "s.sock").parent
    assert list(temporary.iterdir()) == [second]
    assert first != second


def test_a_foreign_directory_is_not_removed(short_path: Path, temporary: Path) -> None:
    """Another user may have reused the name, and the file may name anything."""
    where = _home(short_path, 200)
    directory = unix_sockets.choose_path(where, "s.sock").parent
    directory.rmdir()
    precious = temporary / "precious"
    precious.mkdir()
    directory.symlink_to(precious)
    unix_sockets.remove(where)
    assert precious.is_dir()
    for name in (str(precious), "", "relative", "/\0"):
        (where / "run" / "sockets").write_text(name)
        unix_sockets.remove(where)
        assert precious.is_dir()
        assert not (where / "run" / "sockets").exists()


def test_a_file_system_without_sockets_is_not_used(
    short_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a folder that a virtual machine shares with its host."""

    class Refusing(socket.socket):
        def bind(self, address: Any) -> None:
            if b"/run/" in address:
                raise OSError(errno.EOPNOTSUPP, "Operation not supported")
            super().bind(address)

    monkeypatch.setattr("loadbalancer.unix_sockets.socket.socket", Refusing)
    with home.held(short_path / "var"):
        path = unix_sockets.choose_path(short_path / "var", "s.sock")
        assert path.parent.parent == temporary
    assert list(temporary.iterdir()) == []


def test_no_suitable_directory_is_an_error(short_path: Path, temporary: Path) -> None:
    """The sentence names the setting, and no temporary directory is left."""
    with pytest.raises(BadSetting, match="shorter RECOLLECT_HOME"):
        unix_sockets.choose_path(short_path / "var", "s.sock", limit_bytes=10)
    assert list(temporary.iterdir()) == []
