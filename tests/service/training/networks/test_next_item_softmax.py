"""The loss of sequence models: a softmax over all items, or an estimate of it from a sample."""

import numpy as np
import pytest
import torch

from service.training.deep.group.share import ALONE
from service.training.networks import next_item_softmax
from service.training.networks.item_windows import NONE, Batch
from service.training.networks.next_item_softmax import NextItemSoftmax
from service.training.networks.transformer import Transformer

N_ITEMS = 40


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_item_softmax, "multiplies_bfloat16", lambda: False)


def network(seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    made = Transformer(N_ITEMS, 8, 1, 2, 6, 0.0, is_gated=True)
    torch.nn.init.normal_(made.items.weight[:N_ITEMS], std=0.3)
    made.eval()
    return made


def batch() -> Batch:
    rng = np.random.default_rng(0)
    items, targets = rng.integers(0, N_ITEMS, (2, 3, 6))
    items[2, 4:], targets[2, 4:] = N_ITEMS, NONE
    return Batch(torch.from_numpy(items), torch.from_numpy(targets), ALONE.rows(3), int((targets != NONE).sum()))


def by_hand(made: Transformer, given: Batch) -> float:
    """Return the sum of minus the logarithms of the probabilities of targets, in float64."""
    users = made(given.items).detach().double().numpy()
    table = made.table.detach().double().numpy()
    losses = []
    for row, places in enumerate(given.targets.tolist()):
        for place, target in enumerate(places):
            if target != NONE:
                logits = table @ users[row, place]
                losses.append(np.log(np.exp(logits).sum()) - logits[target])
    return float(np.sum(losses))


def test_without_a_sample_it_is_the_softmax_over_all_items() -> None:
    """Positions without a target do not count; a sample of all items is none."""
    made, given = network(), batch()
    for n_negatives in (0, N_ITEMS):
        loss = NextItemSoftmax(made, torch.arange(N_ITEMS), n_negatives).loss(given)
        assert loss.item() == pytest.approx(by_hand(made, given), rel=1e-5)


def test_a_sample_estimates_it() -> None:
    """The exponentials of sampled losses agree with all items' on average, for few negatives with a small bias."""
    made, given = network(), batch()
    torch.manual_seed(1)
    objective = NextItemSoftmax(made, torch.arange(N_ITEMS), 20)
    with torch.no_grad():
        losses = [float(objective.loss(given)) / given.n_terms for _ in range(100)]
    assert np.std(losses) > 0.01
    assert np.mean(losses) == pytest.approx(by_hand(made, given) / given.n_terms, abs=0.15)


def test_a_target_is_no_negative_of_itself() -> None:
    """With the target as the only candidate the loss is 0."""
    made = network()
    given = Batch(torch.tensor([[1, 2]]), torch.tensor([[7, 7]]), ALONE.rows(1), 2)
    loss = NextItemSoftmax(made, torch.tensor([7, 7, 7]), 2).loss(given)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_bfloat16_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products in bfloat16 move the loss by less than a hundredth; gradients reach every parameter."""
    made, given = network(), batch()
    exact = NextItemSoftmax(made, torch.arange(N_ITEMS), 0).loss(given).item()
    monkeypatch.setattr(next_item_softmax, "multiplies_bfloat16", lambda: True)
    loss = NextItemSoftmax(made, torch.arange(N_ITEMS), 0).loss(given)
    assert loss.item() == pytest.approx(exact, rel=0.01)
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in made.parameters())
