"""Exports networks to ONNX, and compares what ONNX Runtime computes with PyTorch and with NumPy.

Invariant: a file is returned only if its results are those of both, to rounding, on random inputs of several lengths.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime
import torch

from service.errors import RunError
from service.models.networks.inputs import InputTables
from service.training.deep.onnx.form import Named, OnnxForm

OPSET: Final = 20
# Random inputs have these lengths along the named axes; the first is the example from which the graph is traced.
_LENGTHS: Final = (7, 1, 2, 40)
_EXAMPLES: Final = 5  # of each length
# Relative to the largest result, or to 1.
_MOST_DIFFERENCE: Final = 1e-3
# By kind: the module whose `form(network, tables)` returns the `OnnxForm`.
KINDS: Final = {
    "history_tower": "history_tower",
    "category_tower": "category_tower",
    "sequence": "sequence",
    "pair_ranker": "pair_ranker",
}


class OnnxFile(NamedTuple):
    """An exported network.

    Attributes:
        content: The file.
        difference: The largest difference between a result of ONNX Runtime and of PyTorch, absolute.
    """

    content: bytes
    difference: float


def exported(network: Any, tables: InputTables) -> OnnxFile | None:
    """Export a published network; None if its kind has no form in ONNX.

    Args:
        network: A user tower, an item tower or a ranker.
        tables: Those of its model. A user tower holds the embeddings of items as inputs, so that its file is complete.

    Raises:
        RunError: The file computes something else.
    """
    if network.kind not in KINDS:
        return None
    form = form_of(network, tables)
    content = _export(form)
    return OnnxFile(content, largest_difference(network.kind, form, content))


def form_of(network: Any, tables: InputTables) -> OnnxForm:
    """Return the form in which a network of one of `KINDS` is exported."""
    form: OnnxForm = import_module(f"{__package__}.{KINDS[network.kind]}").form(network, tables)
    return form


def _export(form: OnnxForm) -> bytes:
    example = form.example(np.random.default_rng(0), _LENGTHS[0])
    lengths = {axis: torch.export.Dim(axis, min=1) for axes in form.axes.values() for axis in axes.values()}
    shapes = {name: {place: lengths[axis] for place, axis in form.axes.get(name, {}).items()} for name in example}
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            form.module.eval(),
            tuple(torch.from_numpy(array) for array in example.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(example),
            output_names=list(form.outputs),
            dynamic_shapes=tuple(shapes.values()),
            verbose=False,
        )
        content: bytes = program.model_proto.SerializeToString()
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about itself from the terminal: deprecations, and libraries that it does not need."""
    loggers = {name: logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


def largest_difference(kind: str, form: OnnxForm, content: bytes) -> float:
    """Return the largest difference between the results of a file and of PyTorch.

    Raises:
        RunError: It, or that to NumPy, is more than rounding.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    largest = 0.0
    for length in _LENGTHS:
        for _ in range(_EXAMPLES):
            given = form.example(rng, length)
            found = dict(zip(form.outputs, session.run(list(form.outputs), given), strict=True))
            in_torch, in_numpy = _in_torch(form, given), form.in_numpy(given)
            for name, array in found.items():
                difference = _difference(array, in_torch[name])
                most = _MOST_DIFFERENCE * max(1.0, float(np.abs(in_torch[name]).max(initial=0.0)))
                if not max(difference, _difference(array, in_numpy[name])) <= most:
                    raise RunError(
                        f"The ONNX file of the network {kind} computes another {name}: it differs by {difference:.2g} "
                        f"from PyTorch and by {_difference(array, in_numpy[name]):.2g} from NumPy."
                    )
                largest = max(largest, difference)
    return largest


def _in_torch(form: OnnxForm, given: Named) -> Named:
    with torch.no_grad():
        outputs = form.module(*(torch.from_numpy(array) for array in given.values()))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return {name: output.numpy() for name, output in zip(form.outputs, outputs, strict=True)}


def _difference(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    if first.shape != second.shape:
        return float("inf")
    return float(np.abs(first.astype(np.float64) - second).max(initial=0.0))
