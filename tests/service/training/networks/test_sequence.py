"""Sequence models learn the order of items, say what they measured, and are served as they were trained."""

from pathlib import Path

import numpy as np
import pytest
import torch

from service.errors import UsageError
from service.models.fold_in.fold_in import fold_in
from service.models.history.user_history import RATING, UserHistory
from service.models.networks.inputs import InputTables, UserInput
from service.models.networks.sequence import SequenceTower
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.kernels import threads
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.checkpoints.folder import checkpoints_in
from service.training.interactions import Interactions, no_progress
from service.training.networks import sequence
from service.training.networks.item_windows import Batch, Histories
from service.training.networks.next_item_softmax import NextItemSoftmax
from service.training.networks.transformer import Transformer
from tests.support.interactions import rated

QUICK = ("n_factors=16", "n_blocks=1", "window=8", "lr=0.01", "n_epochs=40", "patience=0", "dropout=0")
N_ITEMS = 8


def cycles(n_users: int = 60, length: int = 6) -> Interactions:
    """Return users who go round a circle of items, from a place of their own, a third of them backwards."""
    rows = []
    for user in range(n_users):
        step = -1 if user % 3 == 0 else 1
        rows += [(user, (user * 5 + step * place) % N_ITEMS, 1.0) for place in range(length)]
    return rated(rows, times=[place for _ in range(n_users) for place in range(length)])


def fitted(data: Interactions, *settings: str, seed: int = 0) -> ModelSnapshot:
    candidate = ConfiguredAlgorithm.parse("sequence", (*QUICK, *settings))
    with threads.limit(1):
        return candidate.algorithm.fit(data, candidate.config, np.random.default_rng(seed), no_progress)


def history(rows: list[int]) -> UserHistory:
    return UserHistory(np.array(rows, np.int32), np.ones(len(rows), np.float32), np.full(len(rows), RATING, np.uint8))


def next_item(model: ModelSnapshot, rows: list[int]) -> int:
    user = fold_in(model, history(rows))
    assert user is not None
    scores = model.item_factors @ user.factors
    scores[rows] = -np.inf
    return int(scores.argmax())


@pytest.mark.parametrize("block", ["gated", "plain"])
def test_the_order_of_a_history_decides_what_comes_next(block: str) -> None:
    """The same items forwards and backwards have different continuations, also for users nobody has seen."""
    model = fitted(cycles(), f"block={block}", "n_negatives=0")
    for start in range(N_ITEMS):
        rows = [(start + place) % N_ITEMS for place in range(4)]
        assert next_item(model, rows) == (start + 4) % N_ITEMS
        assert next_item(model, rows[::-1]) == (start - 1) % N_ITEMS


def test_a_sample_of_negatives_learns_it_as_well() -> None:
    model = fitted(cycles(), "n_negatives=5")
    right = [next_item(model, [(start + place) % N_ITEMS for place in range(4)]) for start in range(N_ITEMS)]
    assert right == [(start + 4) % N_ITEMS for start in range(N_ITEMS)]


def test_a_live_event_moves_a_known_user() -> None:
    """As a user whose training had ended with it."""
    data = cycles()
    model = fitted(data, "n_negatives=0")
    known = model.user_history(1).rows.tolist()
    longer = [*known, (known[-1] + 1) % N_ITEMS]
    assert next_item(model, known) == longer[-1]
    assert next_item(model, longer) == (longer[-1] + 1) % N_ITEMS


def test_the_curve_says_what_was_measured_and_kept() -> None:
    """An epoch a point; the best validation is kept."""
    curve = fitted(cycles(n_users=120), "n_epochs=10").learning_curve
    assert [point["epoch"] for point in curve] == list(range(1, 11))
    kept = [point for point in curve if point["kept"]]
    assert [point["ndcg@10"] for point in kept] == [max(point["ndcg@10"] for point in curve)]
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]


def test_the_hidden_interactions_are_the_latest_of_some_users() -> None:
    """At most a tenth of all interactions; none of small data, which trains all epochs."""
    histories = Histories.of(cycles(n_users=120))
    judged = sequence._judged(histories, np.random.default_rng(0))
    assert judged.size == 72
    assert np.unique(judged).tolist() == judged.tolist()
    assert sequence._judged(Histories.of(cycles(n_users=4)), np.random.default_rng(0)).size == 0
    assert all("ndcg@10" not in point for point in fitted(cycles(n_users=4), "n_epochs=2").learning_curve)


@pytest.mark.parametrize(("n_each", "expected"), [(99, (0.4, 1024)), (100, (0.2, 256))])
def test_sparse_data_has_more_dropout_and_negatives(n_each: int, expected: tuple[float, int]) -> None:
    """From a hundred interactions an item on data is dense; what is set counts before that."""
    items = np.repeat(np.arange(3), n_each)
    histories = Histories(np.array([0]), np.array([items.size]), items, 1000)
    assert sequence._by_density(histories, sequence.SequenceConfig()) == expected
    given = sequence.SequenceConfig(dropout=0.0, n_negatives=0)
    assert sequence._by_density(histories, given) == (0.0, 0)


def test_the_validation_is_the_measure_of_lists_without_known_items() -> None:
    """By hand, of users one by one."""
    data = cycles()
    histories = Histories.of(data)
    judged = np.array([3, 10, 44])
    stops = histories.stops.copy()
    stops[judged] -= 1
    learnt = histories._replace(stops=stops)
    torch.manual_seed(3)
    network = Transformer(N_ITEMS, 8, 1, 2, 8, 0.0, is_gated=True).eval()
    torch.nn.init.normal_(network.items.weight[:N_ITEMS])
    expected = []
    for user in judged.tolist():
        rows = learnt.items[learnt.starts[user] : learnt.stops[user]]
        with torch.no_grad():
            scores = (network(torch.from_numpy(rows[None, -8:]))[0, -1] @ network.table.T).numpy()
        scores[rows] = -np.inf
        place = np.argsort(-scores).tolist().index(histories.items[learnt.stops[user]])
        expected.append(1 / np.log2(place + 2) if place < 10 else 0.0)
    with torch.no_grad():
        found = sequence._gains(network, histories, learnt, judged, torch.device("cpu"))
    assert found == pytest.approx(np.sum(expected), abs=1e-6)


@pytest.mark.parametrize("is_gated", [True, False])
def test_numpy_computes_what_pytorch_does(is_gated: bool) -> None:
    """To rounding, of every length up to the window and beyond."""
    torch.manual_seed(1)
    network = Transformer(30, 16, 2, 4, 9, 0.3, is_gated=is_gated).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    torch.nn.init.zeros_(network.items.weight[30:])
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    factors = tensors.pop("items.weight")[:-1]
    tower = SequenceTower.of(tensors, {"n_blocks": 2, "n_heads": 4})
    tables = InputTables(factors, np.zeros(30, np.float32), 0.0)
    rng = np.random.default_rng(0)
    for length in range(1, 15):
        rows = rng.permutation(30)[:length]
        with torch.no_grad():
            expected = network(torch.from_numpy(rows[None, -9:].astype(np.int64)))[0, -1].numpy()
        found = tower.user(UserInput(history(rows.tolist()), np.zeros(0, np.int32)), tables).factors
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_items_and_users_without_interactions_have_no_factors() -> None:
    data = cycles()
    only = data.take(np.flatnonzero((data.user_rows != 7) & (data.item_rows != 4)))
    model = fitted(only, "n_epochs=2")
    assert not model.user_factors[7].any()
    assert not model.item_factors[4].any()
    assert model.user_factors[8].any()


def test_a_fit_continues_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit that is stopped in the middle of an epoch, and run again, ends with the same bytes."""
    expected = fitted(cycles(), "n_epochs=3")
    loss, left = NextItemSoftmax.loss, [8]

    class Stopped(Exception):
        pass

    def stops(self: NextItemSoftmax, batch: Batch) -> torch.Tensor:
        left[0] -= 1
        if not left[0]:
            raise Stopped
        return loss(self, batch)

    monkeypatch.setattr(NextItemSoftmax, "loss", stops)
    with pytest.raises(Stopped), checkpoints_in(tmp_path, 0.0):
        fitted(cycles(), "n_epochs=3")
    assert len(list(tmp_path.iterdir())) == 1
    with checkpoints_in(tmp_path, 0.0):
        found = fitted(cycles(), "n_epochs=3")
    assert found.item_factors.tobytes() == expected.item_factors.tobytes()
    assert found.user_factors.tobytes() == expected.user_factors.tobytes()


def test_heads_that_do_not_divide_the_factors_are_refused() -> None:
    with pytest.raises(UsageError, match="n_heads=3 does not divide n_factors=16"):
        fitted(cycles(), "n_heads=3")
