import numpy as np
import pytest
import torch

from service.training.deep.group import gradient_sum
from service.training.deep.group.gathered import gathered
from service.training.deep.group.gradient_sum import GradientSum, add_by_rows, add_together
from service.training.deep.group.group import Group
from service.training.deep.group.share import Share
from tests.support.networks.thread_group import of_members


@pytest.mark.parametrize("size", [1, 2, 3])
def test_members_add_and_take_over(size: int) -> None:
    """Sums, what the first member has, and the tensors of each, are the same in all members."""

    def exchanged(group: Group) -> tuple[list[float], list[int], list[int], bytes | None, bytes | None, float]:
        rank = group.share.rank
        added, taken = torch.tensor([0.5, rank]), torch.tensor([rank + 7])
        group.add(added)
        group.of_first(taken)
        each = group.of_each(torch.tensor([rank]))
        content = group.bytes_of_first(b"kept" if group.is_first else None)
        return (
            *(added.tolist(), taken.tolist(), [int(value) for value in each], content),
            *(group.bytes_of_first(None), group.number_of_first(rank + 0.25)),
        )

    expected = ([size / 2, sum(range(size))], [7], list(range(size)), b"kept", None, 0.25)
    assert of_members(size, exchanged) == [expected] * size


def test_empty_bytes_are_not_none() -> None:
    assert of_members(2, lambda group: group.bytes_of_first(b"")) == [b"", b""]


@pytest.mark.parametrize("share_of_rows", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("size", [2, 3])
def test_a_table_of_few_rows_is_added_as_a_whole_one_is(size: int, share_of_rows: float) -> None:
    """Members have gradients for different rows, some for none; a number that is not finite is not lost."""
    tables = []
    for rank in range(size):
        rng = np.random.default_rng(rank)
        table = rng.normal(size=(500, 3)).astype(np.float32)
        table[rng.random(500) >= share_of_rows] = 0
        tables.append(torch.from_numpy(table))
    if share_of_rows == 0.02:
        tables[1][499, 1] = torch.nan

    def added(group: Group) -> torch.Tensor:
        table = tables[group.share.rank].clone()
        add_by_rows(group, table)
        return table

    first, *others = of_members(size, added)
    np.testing.assert_allclose(first, sum(tables), rtol=1e-6, atol=1e-6)
    assert all(torch.equal(first.nan_to_num(7), other.nan_to_num(7)) for other in others)


def test_tensors_of_several_types_are_added_together() -> None:
    def added(group: Group) -> list[list[float]]:
        tensors = [torch.tensor([1.0, 2.0]), torch.tensor([[4]]), torch.tensor(0.5, dtype=torch.float64)]
        add_together(group, tensors)
        return [tensor.reshape(-1).tolist() for tensor in tensors]

    assert of_members(2, added) == [[[2.0, 4.0], [8], [1.0]]] * 2


def test_rows_of_other_members_have_their_gradients() -> None:
    """A loss over all rows, a part of which each member computes, has the gradient of one process."""
    inputs = torch.arange(21.0).reshape(7, 3) / 10
    factors = torch.arange(1.0, 8.0)

    def gradient(share: Share) -> torch.Tensor:
        weight = torch.ones(3, requires_grad=True)
        part = share.rows(7)
        outputs = gathered((inputs[part.places] * weight).square(), part)
        # The loss of a member concerns its rows of another thing, and all outputs.
        (outputs.sum(dim=1) * factors).sum().mul(1 / share.size).backward()
        assert weight.grad is not None
        return weight.grad

    expected = gradient(Share())
    for size in (2, 3, 8):
        found = of_members(size, lambda group: gradient(group.share))
        np.testing.assert_allclose(sum(found), expected, rtol=1e-5)


def test_gradients_are_those_of_the_whole_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a parameter that only one member uses; one that no member uses stays without, as in one process."""
    monkeypatch.setattr(gradient_sum, "TABLE", 100)

    def found(group: Group) -> list[list[float] | None]:
        network = torch.nn.ParameterDict(
            {
                "table": torch.nn.Parameter(torch.ones(60, 2)),
                "of_second": torch.nn.Parameter(torch.ones(1)),
                "unused": torch.nn.Parameter(torch.ones(1)),
            }
        )
        exchange = GradientSum(group, network)
        gradients: list[list[float] | None] = []
        for _ in range(2):
            network.zero_grad()
            loss = network["table"][group.share.rank].sum()
            if group.share.rank:
                loss = loss + 3 * network["of_second"].sum()
            loss.backward()
            reported = loss.detach()
            exchange.after_gradients(reported)
            gradients = [
                None if each.grad is None else each.grad.reshape(-1).nonzero()[:, 0].tolist()
                for each in network.parameters()
            ]
            gradients.append(reported.reshape(1).tolist())
        return gradients

    first, second = of_members(2, found)
    assert first == second
    assert sorted(map(str, first)) == sorted(map(str, [[0, 1, 2, 3], [0], None, [7.0]]))
