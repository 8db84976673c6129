"""The networks of a fitted model as ONNX files, made before it is published."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Final

from service.models.networks.inputs import InputTables
from service.models.snapshot import ModelSnapshot

_PACKAGES: Final = ("torch", "onnx", "onnxscript", "onnxruntime")
# The file of a user tower holds the table of items; it has its limit at 2 GB, and is read as a whole.
_MOST_TABLE_BYTES: Final = 256 << 20


def with_onnx_files(snapshot: ModelSnapshot) -> ModelSnapshot:
    """Return a model with the ONNX files of its networks, where the packages of the export are installed.

    Raises:
        RunError: A file computes something else than the network.
    """
    networks = snapshot.networks
    if networks is None or not all(find_spec(package) for package in _PACKAGES):
        return snapshot
    from service.training.deep.onnx.export import exported

    inputs = snapshot.item_factors if snapshot.input_factors is None else snapshot.input_factors
    tables = InputTables(inputs, snapshot.item_bias, snapshot.global_mean)
    found = {
        name: exported(network, tables)
        for name, network in networks.by_name().items()
        if name != "user_tower" or inputs.nbytes <= _MOST_TABLE_BYTES
    }
    files = {name: file for name, file in found.items() if file is not None}
    return replace(
        snapshot,
        networks=replace(
            networks,
            onnx={name: file.content for name, file in files.items()},
            onnx_difference={name: file.difference for name, file in files.items()},
        ),
    )
