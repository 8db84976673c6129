"""The towers in PyTorch compute what is served, and their batches are the histories that a replica has."""

import dataclasses

import numpy as np
import pytest
import torch

from service.models.features.item_features import ItemFeatures
from service.models.history.weights import HistoryWeights
from service.models.networks.history_inputs import HistoryInputs
from service.models.networks.inputs import InputTables, UserInput
from service.models.networks.rating_unit import RatingUnit
from service.models.networks.tower_outputs import TowerOutputs
from service.training.assembly import assemble
from service.training.data.features import DataFeatures
from service.training.deep.batches.items import item_batch
from service.training.deep.batches.ratings import RatingBatches
from service.training.deep.fit.network_training import NetworkTraining
from service.training.deep.group.share import ALONE
from service.training.deep.next_item.batches import NextBatches
from service.training.deep.next_item.validation import NextValidation, last_of_users
from service.training.deep.towers.nets import HistoryNet, ItemNet
from service.training.interactions import Interactions, ItemCatalogue, UserCatalogue
from tests.support.interactions import rated

WIDTH = 5
K = 3
N_ITEMS = 20


@pytest.fixture
def data() -> Interactions:
    generator = np.random.default_rng(3)
    pairs = [(user, item) for user in range(12) for item in generator.permutation(N_ITEMS)[: user + 1].tolist()]
    rows = [(user, item, float(generator.integers(1, 6))) for user, item in pairs]
    plain = rated(rows, times=generator.permutation(len(rows)).tolist(), n_items=N_ITEMS)
    return dataclasses.replace(
        plain,
        catalogue=ItemCatalogue(attributes={f"i{row}": {"genres": [f"g{row % 3}", "all"]} for row in range(15)}),
        user_catalogue=UserCatalogue({f"u{row}": {"group": f"a{row % 2}"} for row in range(11)}),
    )


def inputs_of(*, rated: bool) -> HistoryInputs:
    if rated:
        return HistoryInputs(WIDTH, (0.0,), 0.5, RatingUnit(3.0, 1.5), HistoryWeights(window=7, dislike_weight=1.0))
    weights = HistoryWeights(window=7, dislike_below=2.0, dislike_weight=-0.3)
    return HistoryInputs(WIDTH, (1.0, 4.0, 0.0), 1.0, None, weights)


@pytest.mark.parametrize("rated", [False, True])
def test_users_in_pytorch_are_those_that_are_served(data: Interactions, rated: bool) -> None:
    """Of their whole histories, to rounding."""
    torch.manual_seed(0)
    inputs, features = inputs_of(rated=rated), DataFeatures.of(data)
    network = HistoryNet(inputs, N_ITEMS, features.encoder.user_sizes, (8, 4), K + rated).eval()
    means = np.linspace(-1, 1, N_ITEMS, dtype=np.float32) if rated else None
    outputs = TowerOutputs(K, 2.0, 0.5, has_bias=rated, normalise=not rated)
    with torch.no_grad():
        if means is not None and inputs.unit is not None:
            batches = RatingBatches(data, features, inputs, inputs.unit.learnt(data.ratings), means)
            found = torch.cat([network(batch) for batch in batches.histories(np.arange(12), batch_size=5)])
        else:
            # The history before an interaction of a user with all of the others.
            later = _with_a_last_one(data)
            last = NextBatches(later, features, inputs, np.arange(len(later)), 8, 0)
            found = torch.cat([network(batch) for batch in last.in_order(np.arange(len(data), len(later)), 5)])
    factors, biases = outputs.split(found.numpy())
    tower, snapshot = network.served(outputs), assemble(data, "test", NetworkTraining())
    tables = InputTables(network.input_factors(means), np.zeros(N_ITEMS, np.float32), 0.0)
    for row in range(12):
        recent = inputs.weights.recent(snapshot.user_history(row))
        if not inputs.weights.of(recent).any():
            continue
        user = tower.user(UserInput(recent, features.users[row]), tables)
        np.testing.assert_allclose(user.factors, factors[row], rtol=1e-4, atol=1e-5)
        assert user.bias == pytest.approx(float(biases[row]), rel=1e-4, abs=1e-5)


def _with_a_last_one(data: Interactions) -> Interactions:
    """Return the data with one more interaction of each of its 12 users."""
    rows = np.arange(12, dtype=np.int32)
    item = np.full(12, N_ITEMS - 1, np.int32)
    assert data.timestamps is not None
    return dataclasses.replace(
        data,
        user_rows=np.concatenate([data.user_rows, rows]),
        item_rows=np.concatenate([data.item_rows, item]),
        ratings=np.concatenate([data.ratings, np.full(12, 5, np.float32)]),
        timestamps=np.concatenate([data.timestamps, np.full(12, 10_000)]),
    )


def test_items_without_a_vector_in_pytorch_are_those_that_are_served(data: Interactions) -> None:
    torch.manual_seed(0)
    features = DataFeatures.of(data)
    network = ItemNet(
        N_ITEMS, features.encoder.n_item_categories, WIDTH, (8, 4), K + 1, first_biases=np.zeros(N_ITEMS, np.float32)
    ).eval()
    outputs = TowerOutputs(K, 2.0, 0.5, has_bias=True)
    with torch.no_grad():
        network.own.zero_()
        found = network(item_batch(features.items, np.arange(N_ITEMS))).numpy()
    factors, biases = network.served(outputs).items(ItemFeatures(*features.items))
    expected_factors, expected_biases = outputs.split(found)
    np.testing.assert_allclose(factors, expected_factors, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(biases, expected_biases, rtol=1e-4, atol=1e-6)


def test_no_rating_is_predicted_from_itself(data: Interactions) -> None:
    """Each rating of a batch is an input or a target, and all ratings come once an epoch."""
    features, inputs = DataFeatures.of(data), inputs_of(rated=True)
    long = dataclasses.replace(inputs, weights=dataclasses.replace(inputs.weights, window=100))
    ratings = np.arange(len(data), dtype=np.float32)
    batches = RatingBatches(data, features, long, ratings, np.zeros(N_ITEMS, np.float32))
    n_inputs, targets = 0, []
    for draft in batches.drafts(20, np.random.default_rng(0)):
        batch = batches.batch(draft, ALONE)
        offsets = [*batch.histories.offsets.tolist(), batch.histories.items.numel()]
        items = batch.items.rows[batch.places]
        for user, item in zip(batch.users.tolist(), items.tolist(), strict=True):
            assert item not in batch.histories.items[offsets[user] : offsets[user + 1]].tolist()
        n_inputs += batch.histories.items.numel()
        targets += batch.targets.tolist()
    assert len(set(targets)) == len(targets)
    assert 0 < len(targets) <= len(data) - n_inputs


def test_a_softmax_batch_has_its_items_once_and_leaves_out_what_users_have(data: Interactions) -> None:
    """The correction of an item is the logarithm of the share of batches that hold it."""
    features, inputs = DataFeatures.of(data), inputs_of(rated=False)
    batches = NextBatches(data, features, inputs, np.arange(len(data)), 8, 3)
    rng = np.random.default_rng(0)
    found = [batches.batch(draft, ALONE) for _ in range(300) for draft in batches.drafts(rng)]
    counts, corrections = np.zeros(N_ITEMS), np.zeros(N_ITEMS)
    for batch in found:
        rows = batch.items.rows.numpy()
        assert np.unique(rows).size == rows.size
        assert batch.places.numel() == 8
        counts[rows] += 1
        corrections[rows] = batch.corrections.numpy()
        offsets = [*batch.histories.offsets.tolist(), batch.histories.items.numel()]
        excluded = set(zip(batch.excluded_users.tolist(), batch.excluded_places.tolist(), strict=True))
        for user in range(8):
            own = batch.histories.items[offsets[user] : offsets[user + 1]].tolist()
            assert {place for u, place in excluded if u == user} == set(np.flatnonzero(np.isin(rows, own)).tolist())
            assert int(rows[batch.places[user]]) not in own
    known = counts > 0
    np.testing.assert_allclose(np.log(counts[known] / len(found)), corrections[known], atol=0.1)


def test_the_last_interactions_of_users_are_set_aside(data: Interactions) -> None:
    """Of positive ones; the place of a hidden item is among those that the user does not have before it."""
    is_positive = data.ratings > 1
    positions = last_of_users(data, is_positive, np.random.default_rng(0))
    assert 0 < positions.size <= is_positive.sum() // 10
    assert data.timestamps is not None
    for position in positions.tolist():
        own = np.flatnonzero((data.user_rows == data.user_rows[position]) & is_positive)
        assert data.timestamps[own].max() == data.timestamps[position]
    validation = NextValidation(data, positions, np.ones(N_ITEMS, dtype=bool))
    gains = []
    for position in positions.tolist():
        before = (data.user_rows == data.user_rows[position]) & (data.timestamps < data.timestamps[position])
        place = len(set(range(data.item_rows[position])) - set(data.item_rows[before].tolist()))
        gains.append(1 / np.log2(place + 2) if place < 10 else 0.0)
    # The lower the row, the better the item.
    items = -np.arange(N_ITEMS, dtype=np.float32)[:, np.newaxis]
    assert validation.gains(np.ones((positions.size, 1), np.float32), items).tolist() == pytest.approx(gains)
