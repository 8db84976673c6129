"""Compiles the kernels that the default training uses; `make setup` calls it, so that the first training does not wait.

Run as `python -m ops.kernels`. The machine code is kept as `service.training.algorithms.kernels.compiled` says.
"""

from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.evaluation.kernel_compilation import compile_kernels
from service.training.selection.candidates import CANDIDATES

_DATA = "demo:20x10x60"
# What a candidate tries on dense data alone, which a few ratings are not.
_ON_DENSE_DATA = ("next_item", ("form=factors",))


def main() -> None:
    """Fit each candidate of `auto` to a few ratings."""
    data = datasets.read(_DATA)
    for candidate in CANDIDATES:
        compile_kernels(candidate.configured(), data)
    compile_kernels(ConfiguredAlgorithm.parse(*_ON_DENSE_DATA), data)


if __name__ == "__main__":
    main()
