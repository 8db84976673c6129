from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.training.data import datasets
from service.training.evaluation import split_dataset
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.interactions import Interactions, UserCatalogue
from service.training.search import shared_dataset


@pytest.fixture
def data() -> Interactions:
    data = datasets.read("demo:30x20x200")
    users = UserCatalogue({id_: {"age": 20 + row} for id_, row in data.users.row_of.items()})
    return replace(data, user_catalogue=users, types=np.arange(len(data), dtype=np.uint8) % 5)


def test_a_worker_sees_what_its_parent_has(data: Interactions, tmp_path: Path) -> None:
    """Rows, values, times, ids, attributes and scale of the whole, and both sides of every split."""
    splits = list(split_dataset.split_positions(data, EvaluationProtocol(folds=3)))
    shared_dataset.write(tmp_path, data, splits)
    seen = shared_dataset.SharedDataset(tmp_path)
    assert seen.data.users.id_of == data.users.id_of
    assert seen.data.items.id_of == data.items.id_of
    assert seen.data.user_catalogue == data.user_catalogue
    assert seen.data.catalogue.attributes == data.catalogue.attributes
    assert (seen.data.rating_min, seen.data.rating_max) == (data.rating_min, data.rating_max)
    for index, sides in enumerate(splits):
        for part, positions in zip(seen.split(index), sides, strict=True):
            expected = data.take(positions)
            for name in ("user_rows", "item_rows", "ratings", "timestamps", "types"):
                column, wanted = getattr(part, name), getattr(expected, name)
                np.testing.assert_array_equal(column, wanted)
                assert (type(column), column.dtype) == (np.ndarray, wanted.dtype)


def test_data_may_have_no_times(data: Interactions, tmp_path: Path) -> None:
    """Then a worker has none either."""
    shared_dataset.write(tmp_path, replace(data, timestamps=None), [(np.arange(100), np.arange(150, 200))])
    train, test = shared_dataset.SharedDataset(tmp_path).split(0)
    assert (train.timestamps, test.timestamps, len(train), len(test)) == (None, None, 100, 50)
