from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.models.features.feature_encoder import FeatureEncoder
from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.training.data.features import DataFeatures, features_of_items
from service.training.interactions import Interactions, ItemCatalogue, UserCatalogue
from tests.support.interactions import rated


def with_attributes() -> Interactions:
    """Return 40 users and 30 items; some of both have attributes that no other has, or none."""
    rows = [(user, item, 1.0 + (user + item) % 5) for user in range(40) for item in range(user % 3, 30, 3)]
    data = rated(rows, n_users=40, n_items=30)
    items: dict[str, dict[str, str | int | float | bool | list[str]]] = {
        f"i{row}": {
            "genres": ["Drama", f"only {row}"],
            "year": 1900 + 7 * row,
            "price": row / 7,
            "is_new": row % 2 == 0,
        }
        for row in range(25)
    }
    users: dict[str, dict[str, str | int | float | bool | list[str]]] = {
        f"u{row}": {"age": 10 + row, "gender": "FM"[row % 2], "town": f"town {row}", "likes": ["a", "b"][: row % 3]}
        for row in range(35)
    }
    return replace(data, catalogue=ItemCatalogue({}, items), user_catalogue=UserCatalogue(users))


def test_a_server_computes_the_features_of_training_bit_for_bit(tmp_path: Path) -> None:
    """From the published records and an encoder that was read back from disk, for all users and items, known or not."""
    data = with_attributes()
    trained = DataFeatures.of(data)
    (tmp_path / "features.json").write_bytes(trained.encoder.to_bytes())
    published = data.catalogue.records(data.items.id_of)
    assert published is not None
    records = ItemRecords(published.content, published.offsets)

    encoder = FeatureEncoder.from_bytes((tmp_path / "features.json").read_bytes())
    for row, user_id in enumerate(data.users.id_of):
        served = encoder.user(data.user_catalogue.attributes.get(user_id, {}))
        assert served.tobytes() == trained.users[row].tobytes()
    for row in range(len(data.items)):
        one = encoder.item_features([records.record(row).attributes])
        of_training = trained.items.ids[trained.items.indptr[row] : trained.items.indptr[row + 1]]
        assert one.ids.tobytes() == of_training.tobytes()
    unknown = [ItemRecord(attributes={"genres": ["no such genre"], "colour": "red"}).attributes, {}]
    assert encoder.item_features(unknown).ids.tolist() == [0, 0]


@given(rows=st.lists(st.integers(0, 29), max_size=20))
def test_the_features_of_some_items_are_those_of_each(rows: list[int]) -> None:
    features = DataFeatures.of(with_attributes()).items
    found = features_of_items(features, np.array(rows, dtype=np.int64))
    expected = [features.ids[features.indptr[row] : features.indptr[row + 1]].tolist() for row in rows]
    assert [found.ids[a:b].tolist() for a, b in zip(found.indptr, found.indptr[1:], strict=False)] == expected


def test_data_without_attributes_has_no_columns_and_one_category() -> None:
    features = DataFeatures.of(rated([(0, 0, 1.0), (1, 1, 2.0)]))
    assert features.users.shape == (2, 0)
    assert features.encoder.n_item_categories == 1
    assert features.items.ids.tolist() == [0, 0]
