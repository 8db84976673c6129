"""Networks are published, read back, refused when damaged, and compute users from what is known of them."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.errors import ModelRefused
from service.models.features.feature_encoder import Attributes, FeatureEncoder
from service.models.files import artefact
from service.models.files.erased_users import without_users
from service.models.fold_in.fold_in import fold_in
from service.models.folded_user import folded_user
from service.models.publication import publication
from service.models.snapshot import ModelSnapshot
from tests.support.networks import tiny_networks

Make = Callable[..., ModelSnapshot]


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    with tiny_networks.registered():
        yield


def publish(models_dir: Path, model: ModelSnapshot) -> Path:
    return models_dir / publication.publish(models_dir, model, data={"fingerprint": "sha256:0"}, measures={})


def test_a_model_with_networks_reads_back_as_it_was(tmp_path: Path, make_snapshot: Make) -> None:
    """Weights, settings, inputs, attributes, learning curve and users, to the last bit."""
    model = tiny_networks.with_networks(make_snapshot(), ranks=True)
    directory = publish(tmp_path / "models", model)
    loaded = artefact.load(directory)
    assert loaded.networks is not None
    assert model.networks is not None
    assert list(loaded.networks.by_name()) == ["user_tower", "item_tower", "ranker"]
    for name, network in model.networks.by_name().items():
        for tensor, weights in network.tensors().items():
            np.testing.assert_array_equal(loaded.networks.by_name()[name].tensors()[tensor], weights)
    np.testing.assert_array_equal(loaded.user_inputs, model.user_inputs)
    np.testing.assert_array_equal(loaded.user_attributes, model.user_attributes)
    assert loaded.learning_curve == model.learning_curve
    history = model.user_history(2)
    before, after = folded_user(model, 2, history), folded_user(loaded, 2, history)
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(after.factors, before.factors)
    assert after.constant == before.constant == pytest.approx(model.global_mean + min(5, history.rows.size) / 8)


def test_a_user_is_computed_from_history_attributes_and_own_vector(make_snapshot: Make) -> None:
    """A stranger has none of the last two; given attributes count before the published ones."""
    model = tiny_networks.with_networks(make_snapshot())
    assert model.networks is not None
    assert model.user_inputs is not None
    assert model.input_factors is not None
    tower = model.networks.user_tower
    assert isinstance(tower, tiny_networks.MeanTower)
    history = model.user_history(1)
    mean = model.input_factors[history.rows[-5:]].mean(axis=0) @ tower.weight
    stranger = fold_in(model, history)
    known = fold_in(model, history, 1, np.array([3, 3], np.int32))
    assert stranger is not None
    assert known is not None
    # The category 0 stands for what is unknown.
    np.testing.assert_allclose(stranger.factors, mean + 2 * tower.columns[0], rtol=1e-5)
    np.testing.assert_allclose(known.factors, mean + 2 * tower.columns[3] + model.user_inputs[1], rtol=1e-5)


def test_an_erased_user_leaves_no_row_in_any_table(tmp_path: Path, make_snapshot: Make) -> None:
    """The copy keeps the networks, their ONNX files and all other users as they were."""
    model = tiny_networks.with_networks(make_snapshot())
    directory = publish(tmp_path / "models", model)
    copy = publication.supersede(
        tmp_path / "models", directory.name, lambda snapshot: without_users(snapshot, [0, 2]), "users were erased"
    )
    left = artefact.load(tmp_path / "models" / copy)
    assert model.user_inputs is not None
    assert left.user_inputs is not None
    np.testing.assert_array_equal(left.user_inputs, np.delete(model.user_inputs, [0, 2], axis=0))
    assert left.user_attributes is not None
    assert len(left.user_attributes) == len(left.users)
    row, before = left.users.row_of["u3"], model.users.row_of["u3"]
    ours, theirs = fold_in(left, left.user_history(row), row), fold_in(model, model.user_history(before), before)
    assert ours is not None
    assert theirs is not None
    np.testing.assert_array_equal(ours.factors, theirs.factors)
    assert (tmp_path / "models" / copy / "user_tower.onnx").read_bytes() == b"not read by replicas"


def test_damaged_networks_are_refused(tmp_path: Path, make_snapshot: Make) -> None:
    """Other bytes, junk with its own sha256, an unknown kind, a network too few."""
    directory = publish(tmp_path / "models", tiny_networks.with_networks(make_snapshot()))
    weights, manifest = directory / "user_tower.safetensors", directory / "manifest.json"
    intact, described = weights.read_bytes(), json.loads(manifest.read_text())

    def refused(match: str) -> None:
        with pytest.raises(ModelRefused, match=match):
            artefact.load(directory)

    weights.write_bytes(intact[:-1] + b"\xff")
    refused(r"user_tower\.safetensors does not have the sha256 of the manifest")
    weights.write_bytes(intact)
    for change, match in (
        ({"kind": "unheard"}, "a network of the kind 'unheard', which this release does not have"),
        ({"settings": {"more": 1}}, "The mean tower has other weights"),
        ({"settings": None}, "does not describe user_tower"),
    ):
        altered = {**described, "networks": {**described["networks"]}}
        altered["networks"]["user_tower"] = {**altered["networks"]["user_tower"], **change}
        manifest.write_text(json.dumps(altered))
        refused(match)
    manifest.write_text(json.dumps({**described, "networks": {"item_tower": described["networks"]["item_tower"]}}))
    refused("does not describe the networks")
    manifest.write_text(json.dumps({**described, "networks": None}))
    refused("folds in by a network and has none")


def test_a_model_that_folds_in_by_a_network_has_one(make_snapshot: Make) -> None:
    """Nor do its tables of users differ in length from the users."""
    model = tiny_networks.with_networks(make_snapshot())
    with pytest.raises(ModelRefused, match="folds in by a network and has none"):
        replace(model, networks=None)
    assert model.user_inputs is not None
    with pytest.raises(ModelRefused, match="user_inputs has shape"):
        replace(model, user_inputs=model.user_inputs[1:])


def test_the_feature_encoder_is_published_and_checked(tmp_path: Path, make_snapshot: Make) -> None:
    """A user of whom nothing is known has unknown categories; tables and files that do not fit are refused."""
    plain = make_snapshot()
    people: list[Attributes] = [{"age": 20 + n % 3, "gender": "FM"[n % 2]} for n in range(len(plain.users))]
    encoder = FeatureEncoder.fit(people, [], min_users=1)
    with_tower = tiny_networks.with_networks(plain)
    assert with_tower.networks is not None
    networks = replace(with_tower.networks, features=encoder)
    model = replace(with_tower, networks=networks, user_attributes=encoder.user_table(people))
    directory = publish(tmp_path / "models", model)
    loaded = artefact.load(directory)
    assert loaded.networks is not None
    assert loaded.networks.features == encoder
    np.testing.assert_array_equal(loaded.user_attributes, model.user_attributes)
    unknown, given = (fold_in(model, model.user_history(1), None, row) for row in (None, np.zeros(2, np.int32)))
    assert unknown is not None
    assert given is not None
    np.testing.assert_array_equal(unknown.factors, given.factors)
    # Also where no user of the training has attributes.
    alone = fold_in(replace(model, user_attributes=None), model.user_history(1))
    assert alone is not None
    np.testing.assert_array_equal(alone.factors, given.factors)

    too_large = np.full((len(plain.users), 2), 9, dtype=np.int32)
    for table, match in (
        (too_large, "a category that the encoder does not have"),
        (-too_large, "a category that the encoder does not have"),
        (too_large[:, :1], "1 columns of categories, and the encoder 2"),
    ):
        with pytest.raises(ModelRefused, match=match):
            replace(model, user_attributes=table)
    for content, match in ((b"{}", "does not have the sha256"), (None, "cannot be read")):
        features = directory / "features.json"
        features.unlink()
        if content is not None:
            features.write_bytes(content)
        with pytest.raises(ModelRefused, match=rf"features\.json {match}"):
            artefact.load(directory)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["networks"]["features"] = {"sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    (directory / "features.json").write_bytes(b"{}")
    with pytest.raises(ModelRefused, match="The feature encoder is not of format 1"):
        artefact.load(directory)
