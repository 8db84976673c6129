"""The kernels of the default training are compiled ahead of it."""

from ops import kernels
from service.training.selection.candidates import CANDIDATES


def test_no_candidate_waits_for_a_compiler_afterwards() -> None:
    kernels.main()
    assert [candidate.label for candidate in CANDIDATES if not candidate.is_compiled()] == []
