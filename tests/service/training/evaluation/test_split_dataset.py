from pathlib import Path

import numpy as np
import pytest

from service.errors import DataError, UsageError
from service.training.data import datasets
from service.training.evaluation import split_dataset
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.evaluation.split_dataset import SplitDataset
from service.training.interactions import Interactions
from tests.support.interactions import rated

DEMO = "demo:60x40x900"


def ids(data: Interactions) -> list[tuple[str, str, float]]:
    return [
        (data.users.id_of[user], data.items.id_of[item], rating)
        for user, item, rating in zip(
            data.user_rows.tolist(), data.item_rows.tolist(), data.ratings.tolist(), strict=True
        )
    ]


def only(cut: SplitDataset) -> tuple[Interactions, Interactions]:
    (split,) = cut.splits()
    return split.train, split.test


@pytest.mark.parametrize("split", ["folds", "leave-one-out", "time", "time-per-user"])
def test_a_split_is_a_partition_and_deterministic(split: str) -> None:
    """Both sides are non-empty and together the whole; the seed decides."""
    data = datasets.read(DEMO)
    cut = split_dataset.split(data, EvaluationProtocol(split=split, folds=3, seed=4))
    sides = list(cut.splits())
    assert len(sides) == (3 if split == "folds" else 1)
    for (train, test), (again, _) in zip(sides, cut.splits(), strict=True):
        assert len(train)
        assert len(test)
        assert sorted(ids(train) + ids(test)) == sorted(ids(data))
        assert ids(train) == ids(again)


def test_the_last_interaction_of_each_user() -> None:
    """A user with a single one keeps it."""
    data = rated([(0, 0, 1), (0, 1, 2), (1, 0, 3), (2, 2, 4), (2, 1, 5)], times=[9, 5, 7, 1, 2])
    train, test = only(split_dataset.split(data, EvaluationProtocol(split="leave-one-out")))
    assert ids(test) == [("u0", "i0", 1), ("u2", "i1", 5)]
    assert ids(train) == [("u0", "i1", 2), ("u1", "i0", 3), ("u2", "i2", 4)]


def test_without_times_a_random_interaction_is_held_out() -> None:
    """The seed decides, and a note says so; splits by time are refused."""
    data = rated([(user, item, 3.0) for user in range(20) for item in range(5)])
    cut, same, other = (
        split_dataset.split(data, EvaluationProtocol(split="leave-one-out", seed=seed)) for seed in (0, 0, 1)
    )
    first, again, another = (ids(only(made)[1]) for made in (cut, same, other))
    assert first == again != another
    assert len(first) == 20
    assert "Without times" in cut.notes[0]
    for split in ("time", "time-per-user"):
        with pytest.raises(UsageError, match="needs times, and test has none"):
            list(split_dataset.split(data, EvaluationProtocol(split=split)).splits())


@pytest.mark.parametrize(
    ("protocol", "sentence"),
    [
        (EvaluationProtocol(split="folds", folds=4), "3 ratings cannot be split into 4 folds"),
        (EvaluationProtocol(split="time", test_share=0.2), "too few for the split"),
    ],
)
def test_too_little_to_split(protocol: EvaluationProtocol, sentence: str) -> None:
    """Neither side may be empty."""
    data = rated([(0, 0, 1), (1, 1, 2), (2, 2, 3)], times=[1, 2, 3])
    with pytest.raises(UsageError, match=sentence):
        list(split_dataset.split(data, protocol).splits())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"split": "magic"}, "no split 'magic'; the splits are folds,"),
        ({"folds": 1}, "2 or more"),
        ({"test_share": 1.0}, "between 0 and 1"),
        ({"ks": ()}, "whole numbers from 1 to 500"),
        ({"ks": (20, 10)}, "ascending"),
        ({"ks": (0,)}, "from 1"),
        ({"ks": (501,)}, "to 500"),
        ({"most_users": 0}, "judged users must be at least 1"),
        ({"n_negatives": 0}, "sampled items must be at least 1"),
    ],
)
def test_impossible_protocols(wrong: dict[str, object], sentence: str) -> None:
    """Each is refused by its name before any data is read."""
    with pytest.raises(UsageError, match=sentence):
        EvaluationProtocol(**wrong)  # type: ignore[arg-type]  # what is wrong about them is the test


def test_a_given_test_set(tmp_path: Path) -> None:
    """Equal ids match; new ones get rows; a pair of the training set is not judged; notes say so."""
    (tmp_path / "train.csv").write_text("user,item,rating\na,x,5\nb,y,1\nb,x,2\n")
    (tmp_path / "test.tsv").write_text("user\titem\trating\nb\tz\t4\na\ty\t3\nb\ty\t1\nc\tx\t5\n")
    cut, sets = split_dataset.read(
        str(tmp_path / "train.csv"), EvaluationProtocol(split="given"), test=str(tmp_path / "test.tsv")
    )
    train, test = only(cut)
    assert ids(train) == [("a", "x", 5), ("b", "y", 1), ("b", "x", 2)]
    assert ids(test) == [("b", "z", 4), ("a", "y", 3), ("c", "x", 5)]
    assert train.users is test.users
    assert train.items is test.items
    assert (len(cut.data.users), len(cut.data.items), len(cut.data)) == (3, 3, 3)
    assert "has 1 users and 1 items" in cut.notes[0]
    assert "1 pairs" in cut.notes[1]
    assert cut.n_left_out == 1
    assert len(sets) == 2


def test_a_test_set_that_judges_nothing(tmp_path: Path) -> None:
    """The training set itself."""
    (tmp_path / "t.csv").write_text("a,x,5\nb,y,1\n")
    path = str(tmp_path / "t.csv")
    with pytest.raises(DataError, match="judges nothing"):
        split_dataset.read(path, EvaluationProtocol(split="given"), test=path)


def test_a_test_set_and_the_split_given_belong_together() -> None:
    """Neither without the other."""
    with pytest.raises(UsageError, match="with the split 'given'"):
        split_dataset.read(DEMO, EvaluationProtocol(split="given"))
    with pytest.raises(UsageError, match="with the split 'given'"):
        split_dataset.read(DEMO, EvaluationProtocol(), test=DEMO)


def test_movielens_own_folds(tmp_path: Path) -> None:
    """Five pairs of files beside u.data, in any order of rows; all are over the users and items of the whole."""
    rng = np.random.default_rng(0)
    lines = [
        f"{user}\t{item}\t{1 + (user * item) % 5}\t{880000000 + user}" for user in range(1, 9) for item in range(1, 6)
    ]
    (tmp_path / "u.data").write_text("\n".join(lines) + "\n")
    fold_of = rng.permutation(len(lines)) % 5
    for fold in range(5):
        for side, is_in in (("base", fold_of != fold), ("test", fold_of == fold)):
            part = [lines[position] for position in rng.permutation(np.flatnonzero(is_in))]
            (tmp_path / f"u{fold + 1}.{side}").write_text("\n".join(part) + "\n")
    cut, sets = split_dataset.read(str(tmp_path), EvaluationProtocol(split="canonical"))
    whole = ids(cut.data)
    assert len(sets) == 11
    judged = []
    for train, test in cut.splits():
        assert train.users is test.users is cut.data.users
        assert sorted(ids(train) + ids(test)) == sorted(whole)
        assert (test.rating_min, test.rating_max) == (1, 5)
        judged += ids(test)
    assert sorted(judged) == sorted(whole)
    assert not cut.notes


def test_missing_canonical_folds(tmp_path: Path) -> None:
    """The first missing file is named; a fold with an unknown id is refused."""
    (tmp_path / "u.data").write_text("1\t1\t3\t1\n2\t1\t4\t1\n")
    with pytest.raises(DataError, match=r"holds no u1\.base"):
        split_dataset.read(str(tmp_path), EvaluationProtocol(split="canonical"))
    for fold in range(1, 6):
        (tmp_path / f"u{fold}.base").write_text("1\t1\t3\t1\n")
        (tmp_path / f"u{fold}.test").write_text("7\t1\t3\t1\n")
    with pytest.raises(DataError, match="has '7', which the whole dataset does not"):
        split_dataset.read(str(tmp_path), EvaluationProtocol(split="canonical"))
