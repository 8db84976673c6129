"""From files of users and items to lists of a published tower: the features of serving are those of training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.catalogue.live_items import LiveItems
from service.catalogue.served_model import ServedModel
from service.lists.filters.masks import FilterMasks
from service.lists.list_request import ListRequest
from service.lists.pipeline import ListModel, make_list
from service.lists.request_user import feature_use
from service.models.files import artefact
from service.models.snapshot import ModelSnapshot
from service.training.data import datasets
from service.training.data.features import DataFeatures
from service.training.interactions import no_progress

pytest.importorskip("torch")
from dataclasses import replace

from service.training.networks import two_tower


def write_data(folder: Path) -> None:
    """Write what people of two towns chose: those of Rome odd items, the others even ones."""
    generator = np.random.default_rng(3)
    pairs = [(user, 2 * place + user % 2) for user in range(40) for place in generator.permutation(20)[:12].tolist()]
    ratings = ["user_id,item_id", *(f"u{user},i{item}" for user, item in pairs)]
    (folder / "ratings.csv").write_text("\n".join(ratings) + "\n")
    towns = [f"u{user},{'Rome' if user % 2 else 'Bern'},{20 + user % 4}" for user in range(38)]
    (folder / "users.csv").write_text("\n".join(["user_id,town,age", *towns, "u38,Bree,"]) + "\n")
    items = [f"i{item},Title {item},{'odd' if item % 2 else 'even'}|only {item},{1900 + item}" for item in range(36)]
    (folder / "items.csv").write_text("\n".join(["item_id,title,kinds,year", *items]) + "\n")


def test_features_of_serving_are_those_of_training(
    tmp_path: Path, publish_snapshot: Callable[[Path, ModelSnapshot], str]
) -> None:
    """Bit for bit, for every user and item, also those with unknown values or none, from what is on the disk alone."""
    write_data(tmp_path)
    data = datasets.read(str(tmp_path / "ratings.csv"))
    trained = DataFeatures.of(data)
    config = two_tower.TwoTowerConfig(n_epochs=100, patience=0, hidden_units=16, width=8, n_factors=8, lr=0.02)
    fitted = two_tower.fit(data, config, np.random.default_rng(5), no_progress)
    fitted = replace(fitted, item_records=data.catalogue.records(data.items.id_of))
    model = artefact.load(tmp_path / "models" / publish_snapshot(tmp_path / "models", fitted))

    assert model.networks is not None
    encoder = model.networks.features
    assert encoder is not None
    assert encoder.user_names == ("age", "town")
    assert model.user_attributes is not None
    for row, user_id in enumerate(data.users.id_of):
        served = encoder.user(data.user_catalogue.attributes.get(user_id, {}))
        assert served.tobytes() == trained.users[row].tobytes() == model.user_attributes[row].tobytes()
    assert (
        trained.users[data.users.row_of["u38"]].tolist() == trained.users[data.users.row_of["u39"]].tolist() == [0, 0]
    )
    assert model.item_records is not None
    for row in range(len(data.items)):
        features = encoder.item_features([model.item_records.record(row).attributes])
        own = slice(trained.items.indptr[row], trained.items.indptr[row + 1])
        assert features.ids.tobytes() == trained.items.ids[own].tobytes()

    # A user whom the model has never seen gets what people of the same town like.
    this = ServedModel(model, LiveItems())
    lists = {}
    for town in ("Rome", "Bern"):
        request = ListRequest(8, "stranger", user_features={"town": town})
        made = make_list(ListModel(this.snapshot, this.catalogue, FilterMasks()), request, None, 1e9)
        assert feature_use(this.snapshot, this.catalogue, request) == (["town"], [])
        assert set(made.sources) == {"personal"}
        lists[town] = [int(model.items.id_of[row][1:]) % 2 for row in made.rows]
    assert np.mean(lists["Rome"]) > 0.7 > 0.3 > np.mean(lists["Bern"])
