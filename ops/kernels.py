"""Compiles the kernels that the default training uses; `make setup` calls it, so that the first training does not wait.

Run as `python -m ops.kernels`. The machine code is kept as `service.training.algorithms.kernels.compiled` says.
"""

from service.training.data import datasets
from service.training.evaluation.kernel_compilation import compile_kernels
from service.training.selection.candidates import CANDIDATES

_DATA = "demo:20x10x60"


def main() -> None:
    """Fit each candidate of `auto` to a few ratings."""
    data = datasets.read(_DATA)
    for candidate in CANDIDATES:
        compile_kernels(candidate.configured(), data)


if __name__ == "__main__":
    main()
