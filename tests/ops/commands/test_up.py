"""The model that `up` needs before it starts anything; tests/integration/test_up.py starts it."""

import os
import sys
from pathlib import Path

import pytest

from ops.commands.up import ModelOptions, ensure_model
from service.config import Config
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
