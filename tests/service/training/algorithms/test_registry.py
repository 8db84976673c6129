"""Algorithms and presets by their names on the command line."""

import pytest

from service.errors import UsageError
from service.training.algorithms import registry
from service.training.algorithms.registry import ConfiguredAlgorithm


def test_an_unknown_algorithm_is_refused() -> None:
    """The message names the known ones."""
    with pytest.raises(UsageError, match=r"no algorithm 'svdd' \(did you mean svd\?\); the algorithms are svd, "):
        ConfiguredAlgorithm.parse("svdd")


@pytest.mark.parametrize("name", registry.PRESETS)
def test_a_preset_is_an_algorithm_with_settings(name: str) -> None:
    """It parses, differs from the defaults, is overridden by settings, and hides no algorithm."""
    algorithm, preset = registry.PRESETS[name]
    candidate = ConfiguredAlgorithm.parse(name)
    assert candidate.name == name
    assert (
        candidate.config
        == ConfiguredAlgorithm.parse(algorithm, preset).config
        != ConfiguredAlgorithm.parse(algorithm).config
    )
    setting = preset[0].partition("=")[0]
    assert getattr(ConfiguredAlgorithm.parse(name, [f"{setting}=3"]).config, setting) == 3
    assert name not in registry.names()
