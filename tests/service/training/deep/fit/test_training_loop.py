from collections.abc import Iterator

import numpy as np
import pytest
import torch

from service.errors import TrainingDiverged
from service.training.data import datasets
from service.training.deep.fit.network_training import NetworkTraining
from service.training.deep.fit.torch_run import torch_run
from service.training.deep.fit.training_loop import Validation
from service.training.interactions import no_progress
from tests.support.networks.small_network import DATA, SmallNetwork, trained


def test_the_same_seed_gives_the_same_bytes() -> None:
    """Dropout, batches and first weights follow the generator of the fit; another seed gives another network."""
    config = NetworkTraining(n_epochs=3, batch_size=64)
    first, same, other = (trained(config, seed=seed) for seed in (0, 0, 1))
    assert first == same
    assert first[0] != other[0]


def test_surroundings_are_left_as_they_were() -> None:
    """A fit changes neither the generator of PyTorch, nor its threads, nor its choice of operations."""
    before = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    trained(NetworkTraining(n_epochs=1))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())


def test_the_loss_falls_and_the_curve_says_so() -> None:
    """A point per epoch; without a validation the last epoch is kept."""
    _, curve = trained(NetworkTraining(n_epochs=8, lr=0.02))
    assert [point["epoch"] for point in curve] == list(range(1, 9))
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    assert [point["epoch"] for point in curve if point["kept"]] == [8]


def made_up(values: list[float], *, larger_is_better: bool) -> Validation:
    sequence: Iterator[float] = iter(values)
    return Validation("made_up", lambda: next(sequence), larger_is_better=larger_is_better)


@pytest.mark.parametrize(
    ("values", "larger_is_better"),
    [([1.0, 2.0, 5.0, 5.0, 4.0, 9.0], True), ([9.0, 8.0, 1.0, 1.0, 2.0, 0.0], False)],
)
def test_the_best_epoch_is_kept_and_training_stops(values: list[float], larger_is_better: bool) -> None:
    """Of a validation that is best in epoch 3, the state of epoch 3 is kept, and two later epochs are the last."""
    steps: list[tuple[str, int, int]] = []
    found, curve = trained(
        NetworkTraining(n_epochs=10, patience=2),
        progress=lambda *step: steps.append(step),
        validation=made_up(values, larger_is_better=larger_is_better),
    )
    assert [point["made_up"] for point in curve] == values[:5]
    assert [point["epoch"] for point in curve if point["kept"]] == [3]
    assert found == trained(NetworkTraining(n_epochs=3, patience=2))[0]
    assert steps == [("fit", n, 10) for n in (0, 1, 2, 3, 4, 10)]


def test_divergence_names_the_learning_rate() -> None:
    """A loss that is not finite ends the fit, and so does such a validation."""
    with pytest.raises(TrainingDiverged, match=r"^small diverged in epoch 1 with lr=10: its loss is not finite"):
        trained(NetworkTraining(n_epochs=9, batch_size=50, lr=10), scale=1e38)
    with pytest.raises(TrainingDiverged, match=r"its made_up is not finite"):
        trained(NetworkTraining(n_epochs=1), validation=made_up([float("nan")], larger_is_better=True))


def test_gradients_are_clipped() -> None:
    """With plain gradient descent, a step is as long as the limit times the learning rate."""
    config = NetworkTraining(n_epochs=1, batch_size=1 << 20, clip_norm=0.25)
    data = datasets.read(DATA)
    with torch_run("small", data, config, np.random.default_rng(0), no_progress) as run:
        network = SmallNetwork(60, 40)
        before = [parameter.detach().clone() for parameter in network.parameters()]
        run.train(
            network,
            network.objective(data, config.batch_size, lambda batch: 1e4 * network.loss(batch)),
            optimizer=lambda net: torch.optim.SGD(net.parameters(), lr=1.0),
        )
        moves = torch.cat([(a - b).ravel() for a, b in zip(network.parameters(), before, strict=True)])
    assert moves.norm().item() == pytest.approx(0.25, rel=1e-4)


def test_the_rate_is_a_factor_of_the_learning_rate() -> None:
    """A rate of 0 moves nothing; it is asked for every step, numbered from 0."""
    steps: list[int] = []

    def rate(step: int) -> float:
        steps.append(step)
        return 0.0

    config = NetworkTraining(n_epochs=2, batch_size=300)
    data = datasets.read(DATA)
    n_steps = 2 * -(-len(data) // 300)
    with torch_run("small", data, config, np.random.default_rng(0), no_progress) as run:
        network = SmallNetwork(60, 40)
        before = network.users.weight.detach().clone()
        run.train(network, network.objective(data, config.batch_size), rate=rate)
        assert torch.equal(before, network.users.weight)
    assert steps == list(range(n_steps))
