"""Which algorithms can be tested here."""

from importlib.util import find_spec

from service.training.algorithms import registry


def is_installed(name: str) -> bool:
    """Whether an algorithm has the packages that it needs; CI has all of them (`tests/conftest.py`)."""
    folder, _ = registry._MODULES[name]
    return folder != "deep" or find_spec("torch") is not None
