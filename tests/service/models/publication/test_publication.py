"""A version is written completely or not at all; activation names it in ACTIVE and writes the static lists."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.errors import ModelMissing
from service.models.files import active_model, versions
from service.models.publication import publication
from service.models.snapshot import ModelSnapshot


@pytest.fixture
def snapshot(make_snapshot: Callable[..., ModelSnapshot]) -> ModelSnapshot:
    return make_snapshot(n_items=30)


def published(models_dir: Path, snapshot: ModelSnapshot) -> str:
    return publication.publish(models_dir, snapshot, data={}, measures={})


def test_activating_names_the_version_and_writes_the_static_lists(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """ACTIVE is one line; popular.json has the schema of a list, popular.txt that of the plain route."""
    first, second = published(tmp_path, snapshot), published(tmp_path, snapshot)
    assert active_model.version(tmp_path) is None
    publication.activate(tmp_path, second)
    publication.activate(tmp_path, first)
    assert (tmp_path / "ACTIVE").read_text() == f"{first}\n"
    assert active_model.version(tmp_path) == first
    body = json.loads((tmp_path / "popular.json").read_bytes())
    order = [f"i{row}" for row in np.argsort(-snapshot.popularity, kind="stable")]
    assert [item["item_id"] for item in body["items"]] == order[:10]
    assert (body["recommendation_id"], body["degraded"], body["model"]) == (None, "static", first)
    assert (tmp_path / "popular.txt").read_text() == ",".join(order[:20]) + "\n"
    assert set(versions.published(tmp_path)) == {first, second}


def test_a_failed_publish_leaves_nothing(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """The temporary directory is removed with the error."""
    with pytest.raises(TypeError):
        published(tmp_path, replace(snapshot, settings={"what": object()}))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_the_temporaries_of_a_killed_writer_are_removed_by_the_next(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """They are not listed as versions; links are removed, not followed."""
    (tmp_path / ".svd-20200101T000000-0000.tmp").mkdir()
    (tmp_path / ".svd-20200101T000000-0000.tmp" / "user_bias.bin").write_bytes(b"half")
    (tmp_path / ".ACTIVE.12345678.tmp").write_text("svd-")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / ".link.tmp").symlink_to(tmp_path / "kept")
    assert versions.published(tmp_path) == []
    version = published(tmp_path, snapshot)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "kept", version}
    assert (tmp_path / "kept" / "file").exists()


@pytest.mark.parametrize("name", ["../models", "svd", "", "svd-20200101T000000-0000", "a/b"])
def test_a_missing_version_cannot_be_activated(tmp_path: Path, name: str) -> None:
    """A name is checked before it becomes a path."""
    with pytest.raises(ModelMissing):
        publication.activate(tmp_path, name)


def test_files_of_a_model_are_not_readable_by_others(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """They contain the ids of users."""
    version = published(tmp_path / "models", snapshot)
    assert (tmp_path / "models" / version).stat().st_mode & 0o077 == 0


def test_a_version_is_activated_for_one_role_and_replaced_wherever_it_is_active(
    tmp_path: Path, snapshot: ModelSnapshot
) -> None:
    """The static lists are those of the ranking role; an activation for all ends what a role has of its own."""
    first, second = published(tmp_path, snapshot), published(tmp_path, snapshot)
    publication.activate(tmp_path, first)
    publication.activate(tmp_path, second, "candidates")
    assert json.loads((tmp_path / "popular.json").read_bytes())["model"] == first
    publication.activate(tmp_path, second, "ranking")
    assert json.loads((tmp_path / "popular.json").read_bytes())["model"] == second
    copy = publication.supersede(tmp_path, second, lambda changed: changed, "a test")
    assert [active_model.version(tmp_path, role) for role in ("all", "candidates", "ranking")] == [first, copy, copy]
    assert json.loads((tmp_path / "popular.json").read_bytes())["model"] == copy
    publication.activate(tmp_path, first)
    assert active_model.own_roles(tmp_path) == []
    assert json.loads((tmp_path / "popular.json").read_bytes())["model"] == first
