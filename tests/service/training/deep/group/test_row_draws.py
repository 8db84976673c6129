"""What processes draw for their rows is what one process draws for these rows of the whole batch."""

from collections.abc import Callable

import pytest
import torch

from service.training.deep.group.row_draws import RowDropout, choices, drawing_for, uniform
from service.training.deep.group.share import Share
from service.training.networks.dropout import Dropout

VALUES = torch.arange(1.0, 12 * 5 * 7 + 1).reshape(12, 5, 7)
SHARES = torch.rand(12, 40, generator=torch.Generator().manual_seed(0)).softmax(dim=1)


def of_dropout(values: torch.Tensor) -> torch.Tensor:
    dropped: torch.Tensor = RowDropout(0.3)(values)
    return dropped


def of_drawn_dropout(values: torch.Tensor) -> torch.Tensor:
    dropout = Dropout(0.3)
    dropout.draw(torch.Generator().manual_seed(3))
    dropped: torch.Tensor = dropout(values)
    return dropped


@pytest.mark.parametrize(
    ("whole", "draw"),
    [
        (VALUES, of_dropout),
        (VALUES, of_drawn_dropout),
        (VALUES, lambda values: uniform(tuple(values.shape), values.device)),
        (SHARES, lambda shares: choices(shares, 8)),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_rows_get_the_numbers_of_the_whole_batch(
    whole: torch.Tensor, draw: Callable[[torch.Tensor], torch.Tensor], size: int
) -> None:
    """And the generator is afterwards where it is in one process."""

    def drawn(rank: int, size: int) -> tuple[torch.Tensor, int]:
        torch.manual_seed(5)
        part = Share(rank, size).rows(len(whole))
        with drawing_for(part):
            found = draw(whole[part.places])
        return found, int(torch.randint(1 << 40, (1,)))

    expected, state = drawn(0, 1)
    parts = [drawn(rank, size) for rank in range(size)]
    assert torch.equal(torch.cat([found for found, _ in parts]), expected)
    assert {found for _, found in parts} == {state}


def test_dropout_is_for_training() -> None:
    """Out of training it changes nothing; in training it drops about its share and keeps the mean."""
    values = torch.ones(300, 100)
    dropout = RowDropout(0.3)
    found = dropout(values)
    assert float((found == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(found.mean()) == pytest.approx(1, abs=0.02)
    assert torch.equal(dropout.eval()(values), values)
