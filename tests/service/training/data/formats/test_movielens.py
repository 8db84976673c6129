"""MovieLens as its publishers describe it, and the promised figures on it; skipped without the data."""

from pathlib import Path

from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.evaluation import split_dataset
from service.training.evaluation.comparison import compare
from service.training.evaluation.evaluation_protocol import EvaluationProtocol


def test_movielens_1m_is_read_whole(ml_1m: Path) -> None:
    """Every rating, user, item and title of its README, none bad and none a duplicate."""
    data = datasets.read(str(ml_1m))
    assert (len(data.ratings), len(data.users), len(data.items)) == (1_000_209, 6_040, 3_706)
    assert (data.rating_min, data.rating_max) == (1.0, 5.0)
    assert (data.report.n_bad_rows, data.report.n_duplicates) == (0, 0)
    assert data.catalogue.titles["1"] == "Toy Story (1995)"
    assert len(data.user_catalogue.attributes) == 6_040
    assert data.report.notes == ()


def test_movielens_latest_small_is_read_whole(ml_small: Path) -> None:
    """Comma separated, with a header and half stars."""
    data = datasets.read(str(ml_small))
    assert (len(data.ratings), len(data.users), len(data.items)) == (100_836, 610, 9_724)
    assert (data.rating_min, data.rating_max) == (0.5, 5.0)
    assert data.report.n_bad_rows == 0


def test_svd_reaches_what_we_promise_on_movielens_1m(ml_1m: Path) -> None:
    """Five seeded folds, scikit-surprise's default settings: mean RMSE below 0.8745, mean MAE below 0.687."""
    protocol = EvaluationProtocol(split="folds", folds=5, seed=0)
    cut = split_dataset.split(datasets.read(str(ml_1m)), protocol)
    result, _ = compare(cut, [ConfiguredAlgorithm.parse("svd", [])], protocol)["results"]
    assert result["measures"]["rmse"]["mean"] < 0.8745
    assert result["measures"]["mae"]["mean"] < 0.687
