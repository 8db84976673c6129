"""The ranker in PyTorch is the one that is served."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from service.training.deep.towers.pair_net import PairNet  # noqa: E402


@pytest.mark.parametrize("reads_products", [True, False])
def test_the_served_ranker_scores_like_the_trained_one(reads_products: bool) -> None:
    """Its probabilities are those of the logits, with the offset; also after a share of it is kept."""
    torch.manual_seed(0)
    net = PairNet(6, (8, 4), "elu", np.ones(6, np.float32), reads_products=reads_products, offset=-1.0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    net.eval()
    users, items = torch.randn(1, 6), torch.randn(9, 6)
    for share in (1.0, 0.5, 0.0):
        net.weaken(share)
        with torch.no_grad():
            expected = torch.sigmoid(net(users, items, torch.arange(9)[None]) + 0.7)[0]
        found = net.served(5, 0.7).scores(users[0].numpy(), items.numpy())
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)
    plain = (users @ items.T)[0] + net.offset.detach() + 0.7
    np.testing.assert_allclose(found, torch.sigmoid(plain).numpy(), rtol=1e-5, atol=1e-6)
