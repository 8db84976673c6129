"""A published model reads back as it was; a damaged one is refused and leaves what was active."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from service.errors import ModelError, ModelMissing, ModelRefused
from service.models import artefact, scoring
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.publication import activate


@pytest.fixture
def snapshot() -> ModelSnapshot:
    rng = np.random.default_rng(3)
    return ModelSnapshot(
        algorithm="svd",
        settings={"n_factors": 4},
        users=Vocabulary(["ann", "böb", "9", "x,y"]),
        items=Vocabulary([f"item {i}" for i in range(30)]),
        user_factors=rng.normal(size=(4, 4)).astype(np.float32),
        item_factors=rng.normal(size=(30, 4)).astype(np.float32),
        user_bias=rng.normal(size=4).astype(np.float32),
        item_bias=rng.normal(size=30).astype(np.float32),
        global_mean=3.25,
        rating_min=0.5,
        rating_max=5.0,
        history=csr_array(np.eye(4, 30, dtype=np.float32) * 4.5),
        popularity=rng.random(30).astype(np.float32),
        data_as_of="2026-01-01T00:00:00.000Z",
    )


def published(models_dir: Path, snapshot: ModelSnapshot) -> str:
    return artefact.publish(models_dir, snapshot, data={"fingerprint": "sha256:0"}, measures={"rmse": 0.9})


def test_a_model_reads_back_as_it_was(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """Every array, id and number survives the disk bit for bit, and so does every list."""
    version = published(tmp_path / "models", snapshot)
    loaded = artefact.load(tmp_path / "models" / version)
    for name in ("user_factors", "item_factors", "user_bias", "item_bias", "popularity"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(snapshot, name))
    assert loaded.users.id_of == snapshot.users.id_of
    assert loaded.items.row_of == snapshot.items.row_of
    np.testing.assert_array_equal(loaded.history.toarray(), snapshot.history.toarray())
    assert (loaded.global_mean, loaded.rating_min, loaded.rating_max) == (3.25, 0.5, 5.0)
    assert loaded.version == version
    assert loaded.manifest["measures"] == {"rmse": 0.9}
    wanted = [scoring.Wanted(1, 10)]
    (before,), (after,) = scoring.personal(snapshot, wanted), scoring.personal(loaded, wanted)
    assert before.rows.tolist() == after.rows.tolist()
    assert before.scores.tolist() == after.scores.tolist()


def test_the_first_user_is_found_without_loading(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """An example for a person needs no million ids."""
    directory = tmp_path / published(tmp_path, snapshot)
    assert artefact.first_user_id(directory) == "ann"
    (directory / "user_ids.bin").unlink()
    with pytest.raises(ModelRefused, match="user ids cannot be read"):
        artefact.first_user_id(directory)


def test_what_is_loaded_is_mapped_and_cannot_be_written(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """Replicas share the pages of a model, so nobody may edit them."""
    loaded = artefact.load(tmp_path / published(tmp_path, snapshot))
    with pytest.raises(ValueError, match="read-only"):
        loaded.item_factors[0, 0] = 1.0


def test_activating_names_the_version_and_writes_the_static_lists(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """ACTIVE is one line; popular.json has the schema of a list, popular.txt that of the plain route."""
    first, second = published(tmp_path, snapshot), published(tmp_path, snapshot)
    assert artefact.active_version(tmp_path) is None
    activate(tmp_path, second)
    activate(tmp_path, first)
    assert (tmp_path / "ACTIVE").read_text() == f"{first}\n"
    assert artefact.active_version(tmp_path) == first
    body = json.loads((tmp_path / "popular.json").read_bytes())
    order = [f"item {row}" for row in np.argsort(-snapshot.popularity, kind="stable")]
    assert [item["item_id"] for item in body["items"]] == order[:10]
    assert (body["recommendation_id"], body["degraded"], body["model"]) == (None, "static", first)
    assert (tmp_path / "popular.txt").read_text() == ",".join(order[:20]) + "\n"
    assert set(artefact.versions(tmp_path)) == {first, second}


def _flip_a_byte(directory: Path) -> None:
    path = directory / "item_factors.bin"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)


def _truncate(directory: Path) -> None:
    path = directory / "user_factors.bin"
    path.write_bytes(path.read_bytes()[:-4])


def _swap_for_pickle(directory: Path) -> None:
    (directory / "user_bias.bin").write_bytes(pickle.dumps(np.zeros(4, np.float32)))


def _link_elsewhere(directory: Path) -> None:
    path = directory / "item_bias.bin"
    path.rename(directory / "elsewhere")
    path.symlink_to(directory / "elsewhere")


def _remove_array(directory: Path) -> None:
    (directory / "popularity.bin").unlink()


def _write_manifest(text: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        (directory / "manifest.json").write_text(text)

    return damage


def _edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        manifest = json.loads((directory / "manifest.json").read_text())
        change(manifest)
        (directory / "manifest.json").write_text(json.dumps(manifest))

    return damage


DAMAGE: dict[str, Callable[[Path], None]] = {
    "flipped byte": _flip_a_byte,
    "truncated": _truncate,
    "pickle": _swap_for_pickle,
    "symbolic link": _link_elsewhere,
    "missing array": _remove_array,
    "manifest is no JSON": _write_manifest("{"),
    "manifest nested too deeply": _write_manifest("[" * 100_000),
    "manifest of another version": _edit(lambda m: m.update(version="svd-20200101T000000-0000")),
    "unknown format": _edit(lambda m: m.update(format=99)),
    "shape of 10^11": _edit(lambda m: m["arrays"]["item_factors"].update(shape=[10**11, 10**11])),
    "negative shape": _edit(lambda m: m["arrays"]["item_factors"].update(shape=[-30, -4])),
    "other dtype": _edit(lambda m: m["arrays"]["item_factors"].update(dtype="|O")),
    "array not described": _edit(lambda m: m["arrays"].pop("user_bias")),
    "path instead of an array": _edit(lambda m: m["arrays"].update(user_bias="../../etc/passwd")),
    "no rating scale": _edit(lambda m: m.pop("rating_min")),
    "mean is NaN": _edit(lambda m: m.update(global_mean=float("nan"))),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_model_is_refused_and_the_active_one_stays(
    tmp_path: Path, snapshot: ModelSnapshot, damage: Callable[[Path], None]
) -> None:
    """Whatever is wrong with a version, it is refused with its name, and ACTIVE still names the good one."""
    good, bad = published(tmp_path, snapshot), published(tmp_path, snapshot)
    activate(tmp_path, good)
    damage(tmp_path / bad)
    with pytest.raises(ModelRefused, match=bad):
        activate(tmp_path, bad)
    assert artefact.active_version(tmp_path) == good


@pytest.mark.parametrize("name", ["user_factors", "item_factors", "user_bias", "item_bias", "popularity"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_factors_that_are_not_finite_are_refused(snapshot: ModelSnapshot, name: str, value: float) -> None:
    """A NaN would order lists at random and go out as invalid JSON."""
    array = getattr(snapshot, name).copy()
    array.flat[1] = value
    with pytest.raises(ModelRefused, match="not finite"):
        replace(snapshot, **{name: array})


def test_shapes_that_do_not_fit_the_ids_are_refused(snapshot: ModelSnapshot) -> None:
    """A model of other users than it names is no model."""
    with pytest.raises(ModelRefused, match=r"user_factors has shape \(3, 4\)"):
        replace(snapshot, user_factors=snapshot.user_factors[:3])


def test_a_failed_publish_leaves_nothing(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """What cannot be written whole is not there at all."""
    with pytest.raises(TypeError):
        artefact.publish(tmp_path, replace(snapshot, settings={"what": object()}), data={}, measures={})
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """Nobody ever took it for a version; links are removed, not followed."""
    (tmp_path / ".svd-20200101T000000-0000.tmp").mkdir()
    (tmp_path / ".svd-20200101T000000-0000.tmp" / "user_bias.bin").write_bytes(b"half")
    (tmp_path / ".ACTIVE.12345678.tmp").write_text("svd-")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / ".link.tmp").symlink_to(tmp_path / "kept")
    assert artefact.versions(tmp_path) == []
    version = published(tmp_path, snapshot)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "kept", version}
    assert (tmp_path / "kept" / "file").exists()


@pytest.mark.parametrize("name", ["../models", "svd", "", "svd-20200101T000000-0000", "a/b"])
def test_a_version_that_is_not_there_cannot_be_activated(tmp_path: Path, name: str) -> None:
    """A name is checked before it becomes a path."""
    with pytest.raises(ModelMissing):
        artefact.activate(tmp_path, name)


def test_an_active_file_of_nonsense_is_refused(tmp_path: Path) -> None:
    """ACTIVE names a version or is refused."""
    (tmp_path / "ACTIVE").write_bytes(b"\xff/../../etc")
    with pytest.raises(ModelError, match="does not name a version"):
        artefact.active_version(tmp_path)


def test_files_of_a_model_are_not_readable_by_others(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """Ids of users are in there."""
    version = published(tmp_path / "models", snapshot)
    assert (tmp_path / "models" / version).stat().st_mode & 0o077 == 0
