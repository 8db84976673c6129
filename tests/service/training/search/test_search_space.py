import math

import pytest

from service.declared_settings import declared
from service.errors import UsageError
from service.training.algorithms import registry
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.search.search_space import Choices, Range, assignments, grid, parse
from tests.support.models.installed_algorithms import is_installed


def test_texts_become_ranges_and_choices_of_the_declared_type() -> None:
    """Whole numbers stay whole, a scale is kept, and a value that is written twice counts once."""
    space = parse("svd", ["n_factors=10..50", "lr_all=1e-3..0.1:log", "biased=true,false,true", "reg_bu=none,0.1"], [])
    assert space == {
        "n_factors": Range(10, 50),
        "lr_all": Range(0.001, 0.1, log=True),
        "biased": Choices((True, False)),
        "reg_bu": Choices((None, 0.1)),
    }
    assert [str(dimension) for dimension in space.values()] == ["10..50", "0.001..0.1:log", "true,false", "none,0.1"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("n_factors", "not as 'n_factors'"),
        ("n_factors=", "not as 'n_factors='"),
        ("magic=1..2", "There is no setting 'magic'"),
        ("n_factors=0..10", "n_factors must be from 1 to 4096, not 0"),
        ("n_factors=1.5..10", "n_factors must be a whole number, not '1.5'"),
        ("n_factors=10..10", "must end above 10, not at 10"),
        ("lr_all=0..1:log", "must begin above 0, not at 0"),
        ("lr_all=0.1..1:linear", "unknown scale 'linear'"),
        ("biased=true..false", "biased has no range from true to false"),
        ("n_epochs=5,6", "n_epochs is both fixed and searched"),
    ],
)
def test_an_invalid_space_is_refused(text: str, sentence: str) -> None:
    """With one sentence that names what is wrong, before anything is fitted."""
    with pytest.raises(UsageError, match=sentence):
        parse("svd", [text], ["n_epochs=3"])


def test_a_hyperparameter_has_one_space() -> None:
    """Two are refused."""
    with pytest.raises(UsageError, match="n_factors is given two spaces"):
        parse("svd", ["n_factors=1,2", "n_factors=3,4"], [])


def test_without_a_space_the_algorithms_own_ranges_are_searched() -> None:
    """Apart from what is fixed, and an algorithm without any is refused."""
    names = list(parse("svd", [], []))
    fixed = [f"{name}={getattr(ConfiguredAlgorithm.parse('svd').config, name)}" for name in names]
    assert list(parse("svd", [], fixed[:1])) == names[1:]
    with pytest.raises(UsageError, match="svd has no ranges of its own to search"):
        parse("svd", [], fixed)


@pytest.mark.parametrize("algorithm", [name for name in registry.names() if is_installed(name)])
def test_an_algorithms_own_ranges_are_within_its_bounds(algorithm: str) -> None:
    """Both ends of each are values that the algorithm takes, of the setting's own type."""
    if all(setting.search is None for setting in declared(registry.get(algorithm).config)):
        return
    for name, dimension in parse(algorithm, [], []).items():
        assert isinstance(dimension, Range)
        assert type(dimension.low) is type(dimension.high)
        assert {type(value) for value in dimension.grid()} == {type(dimension.low)}
        for value in dimension.grid():
            found = getattr(ConfiguredAlgorithm.parse(algorithm, assignments({name: value})).config, name)
            assert (found, type(found)) == (value, type(value))


def test_a_grid_is_every_combination_in_order() -> None:
    """A range is cut into five values, ends included exactly; a short one has fewer."""
    points = grid({"n_factors": Range(1, 3), "biased": Choices((True, False))})
    assert points == [{"n_factors": n, "biased": b} for n in (1, 2, 3) for b in (True, False)]
    values = Range(0.001, 0.1, log=True).grid()
    assert (values[0], values[-1], len(values)) == (0.001, 0.1, 5)
    assert values[2] == pytest.approx(math.sqrt(0.001 * 0.1))
    assert Range(10, 100).grid() == (10, 32, 55, 78, 100)


def test_too_large_a_grid_is_refused() -> None:
    """It would fill the memory."""
    with pytest.raises(UsageError, match="too large"):
        grid({f"s{n}": Range(0.0, 1.0) for n in range(8)})


def test_settings_survive_being_written_as_text() -> None:
    """What is published is what was measured, to the last bit."""
    values = {"lr_all": 0.1 + 0.2, "n_factors": 7, "biased": False, "reg_bu": None}
    config = ConfiguredAlgorithm.parse("svd", assignments(values)).config
    assert {name: getattr(config, name) for name in values} == values
