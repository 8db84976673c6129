"""Programs of the system that some tests need."""

import os
import shutil

import pytest


def need_programs(*programs: str) -> None:
    """Skip the test where a program is missing; in CI none may be."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        assert not os.environ.get("CI"), f"CI needs {', '.join(missing)} on PATH."
        pytest.skip(f"{', '.join(missing)} not on PATH")
