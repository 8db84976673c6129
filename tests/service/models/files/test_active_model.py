"""ACTIVE names a version or is refused, and a command that asks for the active model ends in time."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import ModelError, ModelMissing, ModelRefused
from service.models.files import active_model
from service.models.roles import ROLES
from service.models.snapshot import ModelSnapshot


def test_the_active_model_is_loaded(
    tmp_path: Path,
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Callable[[Path, ModelSnapshot], str],
) -> None:
    """Without one, the error names the directory."""
    with pytest.raises(ModelMissing, match="No model is active"):
        active_model.load(tmp_path, 60.0)
    version = publish_snapshot(tmp_path, make_snapshot())
    assert active_model.load(tmp_path, 60.0).version == version


def test_a_hanging_model_store_is_abandoned_after_the_timeout(tmp_path: Path) -> None:
    """The command ends although its thread does not."""
    release = threading.Event()
    with pytest.raises(ModelRefused, match=r"was not read within 0\.01 s"):
        active_model.within_timeout(release.wait, tmp_path, 0.01)
    release.set()


def test_a_pipe_or_a_link_is_no_active_file(tmp_path: Path) -> None:
    """Opening a pipe would wait, and a link may lead anywhere."""
    (tmp_path / "named").write_text("svd-20200101T000000-0000\n")
    (tmp_path / "ACTIVE").symlink_to("named")
    with pytest.raises(ModelRefused, match="ACTIVE cannot be read"):
        active_model.version(tmp_path)
    (tmp_path / "ACTIVE").unlink()
    os.mkfifo(tmp_path / "ACTIVE")
    with pytest.raises(ModelRefused, match="ACTIVE cannot be read"):
        active_model.version(tmp_path)


def test_an_active_file_of_nonsense_is_refused(tmp_path: Path) -> None:
    """ACTIVE names a version or is refused."""
    (tmp_path / "ACTIVE").write_bytes(b"\xff/../../etc")
    with pytest.raises(ModelError, match="does not name a version"):
        active_model.version(tmp_path)


def test_a_role_has_the_version_of_all_or_one_of_its_own(tmp_path: Path) -> None:
    """Its own ends when a version is made active for all."""
    first, second = "svd-20260101T000000-0000", "svd-20260102T000000-0000"
    active_model.replace(tmp_path, first)
    assert [active_model.version(tmp_path, role) for role in ROLES] == [first] * 3
    active_model.replace(tmp_path, second, "ranking")
    assert [active_model.version(tmp_path, role) for role in ROLES] == [first, first, second]
    assert active_model.own_roles(tmp_path) == ["ranking"]
    active_model.unite(tmp_path)
    assert [active_model.version(tmp_path, role) for role in ROLES] == [first] * 3
