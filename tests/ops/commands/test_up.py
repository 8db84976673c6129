"""The model that `up` needs before it starts anything; tests/integration/test_up.py starts it."""

import os
import sys
from pathlib import Path

import pytest

from ops.commands.up import ensure_model
from service.config import Config
from service.training.data.data_request import as_request


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (1, 1), (2, 2), (3, 0), (130, 130)])
def test_a_model_that_is_held_back_leaves_the_previous_one_serving(tmp_path: Path, status: int, expected: int) -> None:
    """Status 3 of the training: published, not activated. Every other failure ends `up`."""
    program = (sys.executable, "-c", f"import sys; sys.exit({status})")
    assert ensure_model(Config(home=tmp_path), as_request("demo:20x20x100"), program, os.environ) == expected
