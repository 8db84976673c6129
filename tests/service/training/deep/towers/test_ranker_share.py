"""The share of a ranker is above 0 only where its gain is not noise."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from service.models.history.weights import HistoryWeights  # noqa: E402
from service.models.networks.tower_outputs import TowerOutputs  # noqa: E402
from service.training.data import datasets  # noqa: E402
from service.training.deep.next_item.task import NextTask, chosen_inputs  # noqa: E402
from service.training.deep.towers import ranked  # noqa: E402
from service.training.deep.towers.model import TowerScales  # noqa: E402
from service.training.deep.towers.nets import HistoryNet, ItemNet  # noqa: E402
from service.training.deep.towers.pair_net import PairNet  # noqa: E402
from service.training.deep.towers.ranked import RankedTowers  # noqa: E402
from service.training.deep.towers.ranker_share import RankerShare, best_share  # noqa: E402
from service.training.interactions import Float32, Float64, no_progress  # noqa: E402
from service.training.networks import neural_mf, rank_net  # noqa: E402
from service.training.networks.neural_mf import NeuralMfConfig  # noqa: E402

N = 400
PLAIN = np.full(N, 0.5)


def differing(mean: float, errors: float) -> Float64:
    """Return gains that differ from `PLAIN` by a mean that is so many standard errors."""
    signs = np.where(np.arange(N) % 2 == 0, 1.0, -1.0)
    deviation = mean / errors * np.sqrt(N)
    gains: Float64 = PLAIN + mean + signs * deviation * np.sqrt((N - 1) / N)
    return gains


def test_the_best_share_of_those_that_gain_for_sure_is_chosen() -> None:
    """A larger gain that may be noise does not count."""
    gains = {0.0: PLAIN, 0.2: differing(0.01, 4), 0.5: differing(0.02, 3), 1.0: differing(0.05, 1.9)}
    chosen = best_share(gains)
    assert chosen.share == 0.5
    assert chosen.gain == pytest.approx(0.02)
    assert chosen.error == pytest.approx(0.02 / 3)


@pytest.mark.parametrize(
    "gains",
    [
        {0.0: PLAIN, 0.5: differing(0.01, 1.0), 1.0: differing(0.02, 1.95)},
        {0.0: PLAIN, 0.5: PLAIN - 0.1, 1.0: PLAIN - 0.2},
        {0.0: PLAIN, 0.5: PLAIN.copy(), 1.0: PLAIN - 0.2},
        {0.0: PLAIN[:20], 0.5: PLAIN[:20] + 0.3, 1.0: PLAIN[:20] + 0.4},
    ],
    ids=["noise", "worse", "the same lists", "too few"],
)
def test_without_a_sure_gain_the_share_is_zero(gains: dict[float, Float64]) -> None:
    """Of one standard error, of a loss, of no difference, and of too few interactions."""
    assert best_share(gains).share == 0


def test_what_was_measured_is_told_even_if_it_is_not_kept() -> None:
    """A user sees how far the best share was from a sure gain."""
    chosen = best_share({0.0: PLAIN, 0.5: differing(0.01, 1.0), 1.0: differing(0.02, 1.5)})
    assert chosen.as_json() == pytest.approx({"ranker_gain": 0.02, "ranker_gain_error": 0.02 / 1.5})
    assert RankerShare(0.0).as_json() == {}


@pytest.fixture(scope="module")
def task() -> NextTask:
    """Some fifty hidden interactions among forty items."""
    data = datasets.read("demo:60x40x900")
    return NextTask.of(
        data, chosen_inputs(HistoryWeights(half_life=4.0, window=20), 4), 64, 0, np.random.default_rng(0)
    )


def towers_that_reverse(task: NextTask) -> RankedTowers:
    """Return towers whose ranker turns the order of products round from a share above a half on."""
    k, encoder = task.is_known.size, task.features.encoder
    network = RankedTowers(
        HistoryNet(task.inputs, k, encoder.user_sizes, (), k),
        ItemNet(k, encoder.n_item_categories, 4, (), k),
        PairNet(k, (4, 2), "relu", np.full(k, -1, dtype=np.float32)),
    )
    network.eval()
    return network


@pytest.mark.parametrize(("hidden_product", "share", "gain"), [(0.0, 0.7, 1.0), (2.0, 0.0, 0.0)])
def test_towers_keep_the_ranker_that_finds_what_is_hidden(
    task: NextTask, monkeypatch: pytest.MonkeyPatch, hidden_product: float, share: float, gain: float
) -> None:
    """Where the hidden items have the least products, the reversed order; where they have the largest, none of it."""
    n_items = task.is_known.size
    users = np.ones((task.judged.size, n_items), dtype=np.float32)
    hidden = task.validation._hidden
    users[np.arange(hidden.size), hidden] = hidden_product
    factors: tuple[Float32, Float32] = users, np.eye(n_items, dtype=np.float32)
    monkeypatch.setattr(ranked, "listed_factors", lambda *_: factors)
    network = towers_that_reverse(task)
    scales = TowerScales(TowerOutputs(n_items), TowerOutputs(n_items))
    kept = network.keep_share(task, scales, NeuralMfConfig(n_candidates=n_items), torch.device("cpu"))
    assert kept.share == share
    assert kept.gain == pytest.approx(gain)
    np.testing.assert_allclose(network.ranker.products.detach().numpy(), 1 - 2 * share, rtol=1e-6)
    # A share that is set is kept and measured; one of 0 with what the best one would gain.
    without = towers_that_reverse(task)
    left_out = without.keep_share(
        task, scales, NeuralMfConfig(n_candidates=n_items, ranker_share=0.0), torch.device("cpu")
    )
    assert left_out == kept._replace(share=0)
    np.testing.assert_allclose(without.ranker.products.detach().numpy(), 1)
    again = towers_that_reverse(task)
    kept = again.keep_share(task, scales, NeuralMfConfig(n_candidates=n_items, ranker_share=1.0), torch.device("cpu"))
    assert kept.share == 1
    assert kept.gain == pytest.approx(1.0 if hidden_product == 0 else -1.0, abs=0.5)
    np.testing.assert_allclose(again.ranker.products.detach().numpy(), -1)


@pytest.mark.parametrize("network", [neural_mf, rank_net])
def test_a_model_pays_for_a_ranker_only_if_it_has_a_share(network: object) -> None:
    """The settings have the share, the kept epoch what it gains; with a share of 0 no ranker is published."""
    data = datasets.read("demo:60x40x900")
    algorithm = network.ALGORITHMS[network.NAME]  # type: ignore[attr-defined]
    models = {}
    for share in (0.0, 0.5, None):
        config = algorithm.config(n_factors=4, width=4, n_epochs=2, ranker_share=share)
        model = algorithm.fit(data, config, np.random.default_rng(0), no_progress)
        assert (model.networks.ranker is not None) == bool(model.settings["ranker_share"])
        (kept,) = (point for point in model.learning_curve if point["kept"])
        assert {"ranker_gain", "ranker_gain_error"} <= kept.keys()
        models[share] = model
    assert models[0.0].settings["ranker_share"] == 0
    assert models[0.5].settings["ranker_share"] == 0.5
    assert models[None].settings["ranker_share"] is not None
