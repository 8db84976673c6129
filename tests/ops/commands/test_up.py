"""The model that `up` needs before it starts anything; tests/integration/test_up.py starts it."""

import os
import sys
import time
from pathlib import Path

import pytest

from ops.commands.up import ModelOptions, ensure_model
from service.config import Config, ModelConfig
from service.errors import UsageError
from service.models.files import active_model
from service.models.files.erased_users import ErasedUsers
from service.training import pipeline
from service.training.data.data_request import as_request

DEMO = as_request("demo:20x20x100")


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (1, 1), (2, 2), (3, 0), (130, 130)])
def test_a_model_that_is_held_back_leaves_the_previous_one_serving(tmp_path: Path, status: int, expected: int) -> None:
    """Status 3 of the training: published, not activated. Every other failure ends `up`."""
    config = Config(home=tmp_path)
    pipeline.train(config, data="demo:20x20x101", algorithm="popularity")
    program = (sys.executable, "-c", f"import sys; sys.exit({status})")
    assert ensure_model(config, DEMO, program, os.environ) == expected


def test_without_a_previous_model_nothing_can_be_served(tmp_path: Path) -> None:
    """The status of the training is that of `up`."""
    program = (sys.executable, "-c", "import sys; sys.exit(3)")
    assert ensure_model(Config(home=tmp_path), DEMO, program, os.environ) == 3


def test_the_training_has_the_options_of_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The algorithm and the force."""
    program = (sys.executable, "-c", "import sys; print(sys.argv[1:])")
    assert ensure_model(Config(home=tmp_path), DEMO, program, os.environ, ModelOptions("svd", force=True)) == 0
    assert str(["train", "--data", "demo:20x20x100", "--algorithm", "svd", "--force"]) in capfd.readouterr().out


def test_an_installation_begins_with_the_model_that_it_brings(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Unless it has another one, is given other data, or is asked for another algorithm. No training runs."""
    other = Config(home=tmp_path / "other")
    version = pipeline.train(other, data="demo:20x20x100", algorithm="popularity")["version"]
    brought = ModelConfig(initial_dir=other.models_dir)
    training = (sys.executable, "-c", "import sys; sys.exit(9)")
    for number, (data, algorithm) in enumerate([(None, None), (DEMO, None), (DEMO, "popularity")]):
        config = Config(home=tmp_path / str(number), models=brought)
        assert ensure_model(config, data, training, os.environ, ModelOptions(algorithm)) == 0
        assert active_model.version(config.models_dir) == version
        assert f"Serving the model {version}, which came with this installation." in capfd.readouterr().out
        # At the next start the model is its own.
        assert ensure_model(config, data, training, os.environ, ModelOptions(algorithm)) == 0
        assert capfd.readouterr().out == ""
    for data, algorithm in [(as_request("demo:20x20x101"), None), (DEMO, "svd")]:
        config = Config(home=tmp_path / "new", models=brought)
        assert ensure_model(config, data, training, os.environ, ModelOptions(algorithm)) == 9


def test_a_model_that_is_brought_and_broken_is_refused(tmp_path: Path) -> None:
    """With the setting that names it."""
    config = Config(home=tmp_path, models=ModelConfig(initial_dir=tmp_path / "absent"))
    with pytest.raises(UsageError, match=r"^RECOLLECT_INITIAL_MODELS: "):
        ensure_model(config, None, (sys.executable, "-c", ""), os.environ)


def test_a_model_with_erased_users_is_not_begun_with(tmp_path: Path) -> None:
    """A training on the same data leaves them out."""
    other = Config(home=tmp_path / "other")
    pipeline.train(other, data="demo:20x20x100", algorithm="popularity")
    config = Config(home=tmp_path / "new", models=ModelConfig(initial_dir=other.models_dir))
    config.models_dir.mkdir(parents=True)
    ErasedUsers.read(config.models_dir).with_erased(["1"], int(time.time())).write(config.models_dir)
    training = (sys.executable, "-c", "import sys; sys.exit(9)")
    assert ensure_model(config, DEMO, training, os.environ) == 9
