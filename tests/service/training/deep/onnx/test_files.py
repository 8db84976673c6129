from pathlib import Path

import numpy as np
import onnxruntime

from service.config import Config
from service.models.files import artefact
from service.training import pipeline


def test_a_published_network_has_its_onnx_file_and_its_learning_curve(tmp_path: Path) -> None:
    """The file gives the trained users of the model; the manifest states the difference, and the best epoch."""
    config = Config(home=tmp_path)
    settings = ["n_factors=8", "n_blocks=1", "window=20", "n_epochs=3", "batch_size=256"]
    manifest = pipeline.train(config, data="demo:60x40x900", algorithm="sequence", settings=settings, activate=False)
    described = manifest["networks"]["user_tower"]["onnx"]
    assert 0 < described["largest_difference"] < 1e-4
    assert [point["epoch"] for point in manifest["learning_curve"]] == [1, 2, 3]
    assert sum(point["kept"] for point in manifest["learning_curve"]) == 1

    version = config.models_dir / manifest["version"]
    model = artefact.load(version)
    session = onnxruntime.InferenceSession((version / "user_tower.onnx").read_bytes())
    for user_row in (0, 7, 59):
        rows = model.user_history(user_row).rows[-20:].astype(np.int64)
        (factors,) = session.run(["factors"], {"history": rows})
        np.testing.assert_allclose(factors, model.user_factors[user_row], rtol=1e-4, atol=1e-5)
