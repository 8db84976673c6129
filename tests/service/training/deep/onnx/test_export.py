import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest

from service.errors import RunError
from service.models.networks import kinds
from service.training.deep.onnx import export
from service.training.deep.onnx.export import OnnxFile, exported
from service.training.deep.onnx.form import OnnxForm
from tests.support.networks import random_networks
from tests.support.networks.random_networks import RandomNetwork

NODE = Path(sys.prefix) / "node" / "node_modules"
SCRIPT = Path(__file__).resolve().parents[4] / "node" / "run_network.js"


class Exported(NamedTuple):
    given: RandomNetwork
    form: OnnxForm
    file: OnnxFile


@pytest.fixture(scope="module", params=random_networks.ALL)
def case(request: pytest.FixtureRequest) -> Exported:
    """A network of each kind with its file; an export takes a second."""
    given = random_networks.ALL[request.param]()
    file = exported(*given)
    assert file is not None
    return Exported(given, export.form_of(*given), file)


def test_a_file_computes_what_a_replica_does(case: Exported) -> None:
    """From inputs of other lengths than those of the export, to rounding; the difference to PyTorch is stated."""
    session = onnxruntime.InferenceSession(case.file.content, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(9)
    for length in (1, 3, 19, 50):
        given = case.form.example(rng, length)
        found = dict(zip(case.form.outputs, session.run(None, given), strict=True))
        for name, array in case.form.in_numpy(given).items():
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=2e-6)
    assert 0 < case.file.difference < 1e-5


def test_a_file_names_its_inputs_and_outputs(case: Exported) -> None:
    """Every input is one of the graph, also where the network does not need it, so that all files are called alike."""
    model = onnx.load_from_string(case.file.content)
    onnx.checker.check_model(model)
    assert [each.name for each in model.graph.input] == list(case.form.example(np.random.default_rng(0), 2))
    assert tuple(each.name for each in model.graph.output) == case.form.outputs
    assert {(each.domain, each.version) for each in model.opset_import} == {("", export.OPSET)}


def test_node_js_computes_the_same(case: Exported, tmp_path: Path) -> None:
    """ONNX Runtime for Node.js gives the numbers of Python, from the same file."""
    node = shutil.which("node")
    if node is None or not NODE.is_dir():
        assert os.environ.get("CI") != "true", "CI runs this test: it needs Node.js, and make node."
        pytest.skip("It needs Node.js, and make node.")
    path = tmp_path / "network.onnx"
    path.write_bytes(case.file.content)
    rng = np.random.default_rng(5)
    inputs = [case.form.example(rng, length) for length in (1, 4, 25)]
    argv = [node, str(SCRIPT), str(path)]
    asked = json.dumps([{name: described(array) for name, array in given.items()} for given in inputs])
    answer = subprocess.run(
        argv, input=asked, env={**os.environ, "NODE_PATH": str(NODE)}, capture_output=True, text=True, check=True
    )
    for given, found in zip(inputs, json.loads(answer.stdout), strict=True):
        for name, array in case.form.in_numpy(given).items():
            np.testing.assert_allclose(np.reshape(found[name], array.shape), array, rtol=1e-5, atol=2e-6)


def described(array: Any) -> dict[str, Any]:
    return {"type": str(array.dtype), "shape": list(array.shape), "values": array.ravel().tolist()}


def test_a_file_that_computes_something_else_is_refused(case: Exported) -> None:
    """Compared with a network whose results are larger by a hundredth."""

    def other(given: Any) -> Any:
        return {name: array + 0.01 for name, array in case.form.in_numpy(given).items()}

    with pytest.raises(RunError, match=r"computes another \w+: it differs by .* from PyTorch and by 0\.01 from NumPy"):
        export.largest_difference("of a test", case.form._replace(in_numpy=other), case.file.content)


def test_every_published_kind_has_a_form() -> None:
    """A new kind of network is exported, too."""
    assert set(export.KINDS) == set(kinds._KINDS)
