"""The kernels of the default training and of lists in bulk are compiled ahead of them."""

from ops import kernels
from service.generation.lists.selection import add_tile, score_best
from service.training.algorithms.kernels.compiled import is_kept
from service.training.selection.candidates import CANDIDATES


def test_no_candidate_waits_for_a_compiler_afterwards() -> None:
    kernels.main()
    assert is_kept(add_tile)
    assert is_kept(score_best)
    assert [candidate.label for candidate in CANDIDATES if not candidate.is_compiled()] == []
