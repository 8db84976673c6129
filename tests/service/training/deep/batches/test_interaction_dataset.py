from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest

from service.models.history.weights import HistoryWeights
from service.training.data.features import DataFeatures
from service.training.interactions import Interactions, ItemCatalogue, UserCatalogue
from tests.reference.recent_histories import history_before
from tests.support.interactions import rated

torch = pytest.importorskip("torch")
from service.training.deep.batches.interaction_dataset import InteractionBatch, InteractionDataset  # noqa: E402
from service.training.deep.batches.loaders import in_order, shuffled_epochs  # noqa: E402

Epoch = Callable[[np.random.Generator], Iterable[InteractionBatch]]
HOW = HistoryWeights(half_life=2.0, window=4, dislike_below=2.0, dislike_weight=-0.5)


@pytest.fixture
def data() -> Interactions:
    generator = np.random.default_rng(3)
    pairs = [(user, item) for user in range(12) for item in generator.permutation(20)[: user + 1].tolist()]
    rows = [(user, item, float(generator.integers(1, 6))) for user, item in pairs]
    plain = rated(rows, times=generator.integers(0, 50, len(rows)).tolist(), n_items=20)
    return replace(
        plain,
        catalogue=ItemCatalogue({}, {f"i{row}": {"genres": ["a", "b", "c"][row % 3 :]} for row in range(18)}),
        user_catalogue=UserCatalogue({f"u{row}": {"age": 20 + row % 2} for row in range(11)}),
    )


def test_a_batch_is_the_interactions_with_their_features_and_histories(data: Interactions) -> None:
    features = DataFeatures.of(data)
    dataset = InteractionDataset(data, features, HOW)
    positions = [70, 0, 33, 70]
    batch = dataset.__getitems__(positions)
    assert len(dataset) == len(data)
    assert batch.history.dtype == batch.attributes.dtype == batch.categories.dtype == torch.int64
    for row, position in enumerate(positions):
        user, item = int(data.user_rows[position]), int(data.item_rows[position])
        assert (int(batch.users[row]), int(batch.items[row])) == (user, item)
        assert float(batch.ratings[row]) == data.ratings[position]
        assert float(batch.weights[row]) == (-0.5 if data.ratings[position] < 2 else 1.0)
        assert batch.attributes[row].tolist() == features.users[user].tolist()
        history = history_before(data, position, window=4)
        width, n = batch.history.shape[1], history.rows.size
        assert batch.history[row].tolist() == [20] * (width - n) + history.rows.tolist()
        assert batch.history_values[row].tolist() == [0.0] * (width - n) + history.values.tolist()
        weights = HOW.of(history).astype(np.float32).tolist()
        assert batch.history_weights[row].tolist() == [0.0] * (width - n) + weights
        bag = np.split(batch.categories.numpy(), batch.category_offsets.numpy()[1:])[row].tolist()
        own = features.items.ids[features.items.indptr[item] : features.items.indptr[item + 1]]
        assert bag == own.tolist()
    same(dataset[5], dataset.__getitems__([5]))


def test_histories_are_of_all_interactions_where_some_are_samples(data: Interactions) -> None:
    """So that a validation side is predicted from what was before it."""
    positions = np.array([40, 70])
    dataset = InteractionDataset(data, None, HOW, positions)
    assert len(dataset) == 2
    same(dataset.__getitems__([1]), InteractionDataset(data, None, HOW).__getitems__([70]))


@pytest.mark.parametrize("drop_last", [False, True])
def test_an_epoch_has_each_interaction_once_in_an_order_of_its_generator(data: Interactions, drop_last: bool) -> None:
    dataset = InteractionDataset(data, None, HOW)
    epoch: Epoch = shuffled_epochs(dataset, 16, drop_last=drop_last)
    first, again, other = (list(epoch(np.random.default_rng(seed))) for seed in (1, 1, 2))
    n = 64 if drop_last else 78
    assert [len(batch.users) for batch in first] == [16] * 4 + ([] if drop_last else [14])
    pairs = [(int(user), int(item)) for batch in first for user, item in zip(batch.users, batch.items, strict=True)]
    assert len(set(pairs)) == len(pairs) == n
    for one, two in zip(first, again, strict=True):
        same(one, two)
    assert first[0].items.tolist() != other[0].items.tolist()


def test_worker_processes_and_the_global_generator_change_nothing(data: Interactions) -> None:
    dataset = InteractionDataset(data, DataFeatures.of(data), HOW)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    alone: Epoch = shuffled_epochs(dataset, 16)
    helped: Epoch = shuffled_epochs(dataset, 16, n_workers=2)
    here = list(alone(np.random.default_rng(7)))
    assert torch.equal(torch.get_rng_state(), state)
    for one, two in zip(here, helped(np.random.default_rng(7)), strict=True):
        same(one, two)


def test_a_loader_without_shuffling_keeps_the_order(data: Interactions) -> None:
    batches: list[InteractionBatch] = list(in_order(InteractionDataset(data, None, HOW), 32))
    assert torch.cat([batch.items for batch in batches]).tolist() == data.item_rows.tolist()


def test_a_batch_larger_than_the_data_is_never_dropped(data: Interactions) -> None:
    epoch: Epoch = shuffled_epochs(InteractionDataset(data, None, HOW), 1000, drop_last=True)
    assert [len(batch.users) for batch in epoch(np.random.default_rng(1))] == [78]


def same(one: InteractionBatch, other: InteractionBatch) -> None:
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left, right)
