"""`needed_training` returns the data to train on, and never replaces a broken model by the demo data."""

import json
from pathlib import Path

import pytest

from service.config import Config
from service.errors import DataError, ModelRefused, UsageError
from service.models.files import versions
from service.training import pipeline
from service.training.data.data_request import as_request
from service.training.training_need import needed_training

DEMO = "demo:60x40x900"
SMALL = ("n_factors=4", "n_epochs=3")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "var")


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_without_a_model(config: Config, tmp_path: Path) -> None:
    """The named data, else the demo data; missing data is refused."""
    path = write(tmp_path / "t.csv", "a,b,3\n")
    assert needed_training(config, None) == as_request("demo")
    assert needed_training(config, path) == as_request(path)
    with pytest.raises(DataError):
        needed_training(config, str(tmp_path / "missing.csv"))


def test_with_a_model(config: Config, tmp_path: Path) -> None:
    """None if the model is of that data or no data is named; the data if they differ or have changed."""
    path = write(tmp_path / "t.csv", "a,b,3\n")
    pipeline.train(config, data=path, algorithm="svd", settings=SMALL)
    assert needed_training(config, None) is None
    assert needed_training(config, path) is None
    assert needed_training(config, DEMO) == as_request(DEMO)
    write(tmp_path / "t.csv", "a,b,4\n")
    assert needed_training(config, path) == as_request(path)
    assert needed_training(config, None) is None


@pytest.mark.parametrize("damage", ["empty", "active", "array", "manifest", "directory", "never activated"])
def test_a_model_that_cannot_be_served_is_never_replaced_by_the_demo(config: Config, damage: str) -> None:
    """One sentence names the fault and the versions that can be served; data that is asked for is trained on."""
    intact = pipeline.train(config, data=DEMO, algorithm="svd", settings=SMALL, activate=True)["version"]
    broken = pipeline.train(config, data=DEMO, algorithm="svd", settings=SMALL, seed=1, activate=True)["version"]
    version, active = config.models_dir / broken, config.models_dir / "ACTIVE"
    both = f"intact, the newest first: {', '.join(reversed(versions.published(config.models_dir)))}; serve one"
    fault, which = {
        "empty": ("does not name a version", both),
        "active": ("does not name a version", both),
        "array": ("user_bias", f"intact: {intact}"),
        "manifest": ("the manifest cannot be read", f"intact: {intact}"),
        "directory": (f"There is no model '{broken}'", f"intact: {intact}"),
        "never activated": ("No model is active", both),
    }[damage]
    if damage in {"empty", "active"}:
        active.write_text("" if damage == "empty" else "../elsewhere")
    elif damage == "array":
        with (version / "user_bias.bin").open("r+b") as file:
            file.write(b"\xff\xff")
    elif damage == "manifest":
        (version / "manifest.json").write_text("{")
    elif damage == "directory":
        version.rename(config.models_dir / "elsewhere")
    else:
        active.unlink()
    with pytest.raises(ModelRefused) as refused:
        needed_training(config, None)
    assert fault in str(refused.value)
    assert which in str(refused.value)
    assert needed_training(config, DEMO) == as_request(DEMO)


def test_a_lost_model_is_not_replaced_by_the_demo_either(config: Config) -> None:
    """ACTIVE names a missing version, and there is no other."""
    config.models_dir.mkdir(parents=True)
    (config.models_dir / "ACTIVE").write_text("svd-20260101T000000-abcd\n")
    with pytest.raises(ModelRefused, match=r"There is no model .* no other version is intact"):
        needed_training(config, None)


def test_a_models_directory_that_is_a_file_is_refused(config: Config) -> None:
    """Before a training that could not publish."""
    config.home.mkdir(parents=True)
    config.models_dir.write_text("")
    with pytest.raises(ModelRefused, match="cannot be read: Not a directory"):
        needed_training(config, None)


def test_a_named_algorithm_is_trained_unless_it_is_served(config: Config, tmp_path: Path) -> None:
    """A preset is not the algorithm that it configures; the demo data need not be named again, other data must."""
    path = write(tmp_path / "t.csv", "a,b,3\n")
    pipeline.train(config, data=path, algorithm="popularity")
    assert needed_training(config, path, "popularity") is None
    assert needed_training(config, None, "popularity") is None
    assert needed_training(config, path, "ials") == as_request(path)
    assert needed_training(config, path, "auto") == as_request(path)
    with pytest.raises(UsageError, match=r"active model is of popularity: name the data to train ials on with --data"):
        needed_training(config, None, "ials")
    pipeline.train(config, data=path)
    assert needed_training(config, path, "auto") is None
    assert needed_training(config, path, "popularity") is None
    pipeline.train(config, data=DEMO, algorithm="best", settings=["n_samples=2", "n_factors=2"], activate=True)
    assert needed_training(config, None, "best") is None
    assert needed_training(config, None, "bayesian_mf") == as_request(DEMO)


def test_a_poor_model_of_an_older_release_is_replaced(config: Config, tmp_path: Path) -> None:
    """If its data is known; one that was forced since stays."""
    version = pipeline.train(config, data=DEMO, algorithm="svd", settings=SMALL, activate=True)["version"]
    assert needed_training(config, None) is None
    path = config.models_dir / version / "manifest.json"
    manifest = json.loads(path.read_text())
    older = {**manifest, "measures": {**manifest["measures"], "held_back": None}}
    del older["selection"]
    path.write_text(json.dumps(older))
    assert needed_training(config, None) == as_request(DEMO)
    assert needed_training(config, DEMO) == as_request(DEMO)
    own = {**older, "data": {**older["data"], "source": "ratings.csv"}}
    path.write_text(json.dumps(own))
    assert needed_training(config, None) is None
    better = {**older, "measures": {**older["measures"], "ndcg@10": 1.0}}
    path.write_text(json.dumps(better))
    assert needed_training(config, None) is None
