"""Hyperparameters are parsed by type and checked, and a list of algorithms imports no compiler."""

import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import UsageError
from service.training import hyperparameters
from service.training.algorithms.svd import SvdConfig

ROOT = Path(__file__).resolve().parents[4]


def test_settings_are_parsed_by_type() -> None:
    """The last of a repeated setting counts; the others keep the defaults of scikit-surprise."""
    texts = ["n_factors=50", "biased=no", "lr_all=1e-2", " reg_bu = 0.1 ", "lr_pu=none", "n_factors=60"]
    config = hyperparameters.parse(SvdConfig, texts)
    assert config == SvdConfig(n_factors=60, biased=False, lr_all=0.01, reg_bu=0.1)
    assert SvdConfig() == SvdConfig(
        n_factors=100, n_epochs=20, biased=True, init_mean=0.0, init_std_dev=0.1, lr_all=0.005, reg_all=0.02
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("n_factors=many", "n_factors must be a whole number, not 'many'"),
        ("n_factors=2.5", "n_factors must be a whole number"),
        ("n_factors=", "n_factors must be a whole number"),
        ("biased=perhaps", "biased must be true or false"),
        ("lr_all=none", "lr_all must be a number"),
        ("lr_all=inf", "lr_all must be from 0 to 10, not inf."),
        ("lr_bu=-0.1", "lr_bu must be from 0 to 10"),
        ("n_factors=1000000", "n_factors must be from 1 to 4096"),
        ("factors=3", "There is no setting 'factors' (did you mean n_factors?); the settings are n_factors, n_epochs"),
        ("=3", "There is no setting ''"),
        ("n_factors", "name=value"),
    ],
)
def test_bad_settings(text: str, sentence: str) -> None:
    """The message says what is accepted."""
    with pytest.raises(UsageError) as refusal:
        hyperparameters.parse(SvdConfig, [text])
    assert sentence in str(refusal.value)


def test_a_config_made_in_code_is_checked_too() -> None:
    """The constructor checks bounds."""
    with pytest.raises(UsageError, match="n_epochs must be from 1"):
        SvdConfig(n_epochs=0)


def test_kernels_are_not_imported_before_they_are_needed() -> None:
    """Names of algorithms, fingerprints and `training_need` import neither a compiler nor pyarrow."""
    program = """
import sys
from service.training.data import datasets
from service.training import training_need
from service.training.algorithms import registry
assert "svd" in registry.names()
assert datasets.fingerprint("demo").startswith("sha256:")
assert training_need.DEFAULT_DATA
print(sorted({"numba", "pyarrow", "pydantic", "aiohttp"} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "[]\n"), ended.stderr
