"""A published model reads back unchanged; a damaged one is refused, and the active version stays."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from service.errors import ModelRefused
from service.models.files import active_model, artefact
from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.models.publication import publication
from service.models.publication.publication import activate
from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary


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
    return publication.publish(models_dir, snapshot, data={"fingerprint": "sha256:0"}, measures={"rmse": 0.9})


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
    requests = [scoring.TopNRequest(1, 10)]
    (before,), (after,) = scoring.personal(snapshot, requests), scoring.personal(loaded, requests)
    assert before.rows.tolist() == after.rows.tolist()
    assert before.scores.tolist() == after.scores.tolist()


def test_the_indices_of_histories_stay_in_the_mapped_file(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """A matrix whose row pointers are wider than its indices would get a private copy of all of them."""
    loaded = artefact.load(tmp_path / "models" / published(tmp_path / "models", snapshot))
    indices = loaded.history.indices
    assert indices.dtype == np.int32
    assert not indices.flags.owndata
    assert not indices.flags.writeable


def test_the_item_catalogue_reads_back(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """Titles and attributes of each item; a model without them has none, as those of older versions."""
    records = [ItemRecord(f"Tïtle {row}", {"year": row, "genres": ["a", "b"]}) for row in range(29)]
    with_records = replace(snapshot, item_records=ItemRecords.of([*records, ItemRecord()]))
    loaded = artefact.load(tmp_path / published(tmp_path, with_records))
    assert loaded.item_records is not None
    assert [loaded.item_records.record(row) for row in range(30)] == [*records, ItemRecord()]
    assert artefact.load(tmp_path / published(tmp_path, snapshot)).item_records is None
    with pytest.raises(ModelRefused, match="29 records for 30 items"):
        replace(snapshot, item_records=ItemRecords.of(records))


def test_the_first_user_is_found_without_loading(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """From two small reads."""
    directory = tmp_path / published(tmp_path, snapshot)
    assert artefact.first_user_id(directory) == "ann"
    (directory / "user_ids.bin").unlink()
    with pytest.raises(ModelRefused, match="user ids cannot be read"):
        artefact.first_user_id(directory)


def test_loaded_arrays_are_read_only(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """Replicas share the pages of a model."""
    loaded = artefact.load(tmp_path / published(tmp_path, snapshot))
    with pytest.raises(ValueError, match="read-only"):
        loaded.item_factors[0, 0] = 1.0


FLOATS = ("user_factors", "item_factors", "user_bias", "item_bias", "popularity", "history_values")


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


def _array(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change an array and its description in the manifest: a faulty writer, not a faulty disk."""

    def damage(directory: Path) -> None:
        path = directory / f"{name}.bin"
        manifest = json.loads((directory / "manifest.json").read_text())
        described = manifest["arrays"][name]
        before = np.frombuffer(path.read_bytes(), described["dtype"]).reshape(described["shape"]).copy()
        after = np.ascontiguousarray(change(before), dtype=described["dtype"])
        path.write_bytes(after.tobytes())
        described.update(
            shape=list(after.shape), bytes=after.nbytes, sha256=hashlib.sha256(after.tobytes()).hexdigest()
        )
        (directory / "manifest.json").write_text(json.dumps(manifest))

    return damage


def _set(**values: float) -> Callable[[Any], Any]:
    """Write values at places, such as `_1=nan`."""

    def change(array: Any) -> Any:
        for place, value in values.items():
            array.flat[int(place[1:])] = value
        return array

    return change


def _all(*damages: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        for one in damages:
            one(directory)

    return damage


def _become_a_pipe(name: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        (directory / name).unlink()
        os.mkfifo(directory / name)

    return damage


def _link_the_version(directory: Path) -> None:
    elsewhere = directory.with_name("elsewhere")
    directory.rename(elsewhere)
    directory.symlink_to(elsewhere)


def _endless_manifest(directory: Path) -> None:
    """A file of a terabyte that takes no room on the disk."""
    with (directory / "manifest.json").open("ab") as file:
        file.truncate(1 << 40)


def _endless_array(directory: Path) -> None:
    """The same, with a matching shape in the manifest."""
    with (directory / "item_bias.bin").open("ab") as file:
        file.truncate(1 << 40)
    _edit(lambda m: m["arrays"]["item_bias"].update(shape=[1 << 38]))(directory)


def _endless_ids(directory: Path) -> None:
    """Ids take far more memory than their offsets take on the disk."""
    with (directory / "user_id_offsets.bin").open("ab") as file:
        file.truncate(1 << 36)
    _edit(lambda m: m["arrays"]["user_id_offsets"].update(shape=[1 << 33]))(directory)


def _no_items(directory: Path) -> None:
    for name in ("item_ids", "item_bias", "popularity", "history_indices", "history_values"):
        _array(name, lambda array: array[:0])(directory)
    _array("item_id_offsets", lambda array: array[:1])(directory)
    _array("item_factors", lambda array: array[:0])(directory)
    _array("history_indptr", lambda array: array * 0)(directory)
    _edit(lambda m: m.update(n_items=0))(directory)


DAMAGE: dict[str, Callable[[Path], None]] = {
    **{f"NaN in {name}": _array(name, _set(_1=np.nan)) for name in FLOATS},
    **{f"infinity in {name}": _array(name, _set(_2=-np.inf)) for name in FLOATS},
    "factors whose products are infinite": _all(
        _array("user_factors", _set(_0=3e38)), _array("item_factors", _set(_0=3e38))
    ),
    "popularity below 0": _array("popularity", _set(_0=-1)),
    "history that does not ascend": _all(
        _array("history_indptr", lambda _: [0, 2, 2, 3, 4]), _array("history_indices", lambda _: [7, 3, 1, 2])
    ),
    "history with an item twice": _all(
        _array("history_indptr", lambda _: [0, 2, 2, 3, 4]), _array("history_indices", lambda _: [3, 3, 1, 2])
    ),
    "history of items that are not there": _array("history_indices", _set(_0=30)),
    "history of items before the first": _array("history_indices", _set(_0=-1)),
    "history pointers that go back": _array("history_indptr", lambda _: [0, 3, 1, 3, 4]),
    "history pointers beyond the end": _array("history_indptr", _set(_4=5)),
    "a pointer too few": _array("history_indptr", lambda array: array[:-1]),
    "history values too few": _array("history_values", lambda array: array[:-1]),
    "ids that overlap": _array("user_id_offsets", lambda _: [0, 5, 3, 8, 11]),
    "ids beyond the end": _array("user_id_offsets", _set(_4=99)),
    "control character in an id": _array("item_ids", _set(_2=0x0A)),
    "C1 control character in an id": _array("user_ids", lambda array: [*array[:3], 0xC2, 0x85, *array[5:]]),
    "id twice": _array("item_ids", lambda array: [*b"item 0item 0", *array[12:]]),
    "id that is not UTF-8": _array("user_ids", _set(_0=0xFF)),
    "no items": _no_items,
    "users cut off": _array("user_factors", lambda array: array[:-1]),
    "factors of another rank": _array("user_factors", lambda array: array[:, :-1]),
    "three dimensions": _array("user_factors", lambda array: array[:, :, None]),
    "pipe instead of an array": _become_a_pipe("item_factors.bin"),
    "pipe instead of the manifest": _become_a_pipe("manifest.json"),
    "link instead of a version": _link_the_version,
    "manifest without end": _endless_manifest,
    "array without end": _endless_array,
    "ids without end": _endless_ids,
    "shape of many numbers": _edit(lambda m: m["arrays"]["user_bias"].update(shape=[1] * 10_000)),
    "shape too long for a file": _edit(lambda m: m["arrays"]["user_bias"].update(shape=[10**4000])),
    "shape that is a float": _edit(lambda m: m["arrays"]["user_bias"].update(shape=[4.0])),
    "shape that is true": _edit(lambda m: m["arrays"]["user_bias"].update(shape=[True])),
    "sha256 that is a number": _edit(lambda m: m["arrays"]["user_bias"].update(sha256=1)),
    "other counts": _edit(lambda m: m.update(n_items=31)),
    "scale upside down": _edit(lambda m: m.update(rating_min=6.0)),
    "mean beyond any float": _edit(lambda m: m.update(global_mean=10**400)),
    "time that is none": _edit(lambda m: m.update(data_as_of="yesterday")),
    "settings that are a list": _edit(lambda m: m.update(settings=[1])),
    "neighbourhood that is a list": _edit(lambda m: m.update(neighbourhood=[])),
    "neighbourhood without arrays": _edit(lambda m: m.update(neighbourhood={"over": "items"})),
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
    """The error names the version; neither time nor memory depends on the claimed sizes."""
    good, bad = published(tmp_path, snapshot), published(tmp_path, snapshot)
    activate(tmp_path, good)
    damage(tmp_path / bad)
    with pytest.raises(ModelRefused, match=bad):
        activate(tmp_path, bad)
    assert active_model.version(tmp_path) == good


@pytest.mark.parametrize("name", ["user_factors", "item_factors", "user_bias", "item_bias", "popularity"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_factors_that_are_not_finite_are_refused(snapshot: ModelSnapshot, name: str, value: float) -> None:
    """A NaN would order lists at random and go out as invalid JSON."""
    array = getattr(snapshot, name).copy()
    array.flat[1] = value
    with pytest.raises(ModelRefused, match="not finite"):
        replace(snapshot, **{name: array})


def test_shapes_that_do_not_fit_the_ids_are_refused(snapshot: ModelSnapshot) -> None:
    """Arrays must match the vocabularies."""
    with pytest.raises(ModelRefused, match=r"user_factors has shape \(3, 4\)"):
        replace(snapshot, user_factors=snapshot.user_factors[:3])


def test_loading_can_be_ended_at_a_checkpoint(tmp_path: Path, snapshot: ModelSnapshot) -> None:
    """Between two pieces of a large file."""
    directory = tmp_path / published(tmp_path, snapshot)

    def given_up() -> None:
        raise ModelRefused("enough")

    with pytest.raises(ModelRefused, match="enough"):
        artefact.load(directory, given_up)
