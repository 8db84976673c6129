from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from service.errors import UsageError
from service.training.search.search_space import Choices, Range, Space
from service.training.search.study import DefaultsRun, Method, Study, open_study

SPACE: Space = {"a": Range(0.0, 1.0), "b": Range(1, 64, log=True), "c": Choices(("x", None, True))}
SPEC = {"data": "sha256:1", "space": "a and b"}


def study(
    path: Path | None,
    method: Method = "tpe",
    *,
    seed: int = 0,
    spec: dict[str, str] = SPEC,
    space: Space = SPACE,
) -> AbstractContextManager[Study]:
    return open_study(path, spec, space, method, seed=seed, lower_is_better=True, parallel=False)


def run_trials(opened_study: Study, n: int) -> list[dict[str, object]]:
    """Make and complete n trials of a bowl; return their settings."""
    for _ in range(n):
        trial = opened_study.next()
        assert trial is not None
        a = trial.settings["a"]
        assert isinstance(a, float)
        opened_study.complete(opened_study.report(trial, (a - 0.3) ** 2, 0.5))
    return [dict(trial.settings) for trial in opened_study.trials()]


@pytest.mark.parametrize("method", ["tpe", "random"])
def test_a_reopened_study_makes_the_same_trials(method: Method, tmp_path: Path) -> None:
    """The same trials in the same order, past the random beginning of the model too."""
    with study(None, method) as whole:
        expected = run_trials(whole, 14)
    path = tmp_path / "study"
    for n in (3, 8, 3):
        with study(path, method) as part:
            reached = run_trials(part, n)
    assert reached == expected
    with study(None, method, seed=1) as other:
        assert run_trials(other, 3) != expected[:3]


def test_the_model_finds_the_bowls_bottom(tmp_path: Path) -> None:
    """It improves, and ranks the importance of hyperparameters."""
    with study(None) as bowl:
        settings = run_trials(bowl, 30)
        importance = bowl.importance()
    distances = [abs(float(str(point["a"])) - 0.3) for point in settings]
    assert min(distances[10:]) < 0.02
    assert max(importance, key=lambda name: importance[name]) == "a"
    assert sum(importance.values()) == pytest.approx(1)


def test_few_trials_have_no_importance() -> None:
    """It would be chance."""
    with study(None) as few:
        run_trials(few, 7)
        assert few.importance() == {}


def test_a_grid_is_tried_once_and_then_is_over(tmp_path: Path) -> None:
    """Every point, in an order of the seed, also across two runs."""
    space: Space = {"a": Choices((0.0, 0.5, 1.0)), "b": Choices((1, 2))}
    path = tmp_path / "study"
    with study(path, "grid", space=space) as first:
        assert first.n_grid_points == 6
        run_trials(first, 4)
    with study(path, "grid", space=space) as second:
        settings = run_trials(second, 2)
        assert second.next() is None
    assert sorted((str(point["a"]), point["b"]) for point in settings) == [
        (a, b) for a in ("0.0", "0.5", "1.0") for b in (1, 2)
    ]
    assert [(point["a"], point["b"]) for point in settings] != [(a, b) for a in (0.0, 0.5, 1.0) for b in (1, 2)]


def test_a_trial_under_way_keeps_its_folds(tmp_path: Path) -> None:
    """Its measured folds are kept."""
    path = tmp_path / "study"
    with study(path) as first:
        begun = first.next()
        assert begun is not None
        first.report(first.report(begun, 0.9, 1.0), 0.8, 2.0)
    with study(path) as second:
        (left,) = second.trials()
    assert (left.settings, left.folds, left.seconds, left.state) == (begun.settings, (0.9, 0.8), (1.0, 2.0), "running")


def test_how_trials_ended_is_kept(tmp_path: Path) -> None:
    """With the reason of a failure, and the measure of the defaults."""
    path = tmp_path / "study"
    with study(path) as first:
        trials = [first.next() for _ in range(3)]
        pruned, failed, complete = (trial for trial in trials if trial is not None)
        first.prune(first.report(pruned, 0.9, 1.0))
        first.fail(failed, "it diverged")
        first.complete(first.report(complete, 0.5, 1.0))
        first.defaults = DefaultsRun((0.7,), (1.0,))
    with study(path) as second:
        assert [(trial.state, trial.why) for trial in second.trials()] == [
            ("pruned", None),
            ("failed", "it diverged"),
            ("complete", None),
        ]
        assert second.defaults == DefaultsRun((0.7,), (1.0,))


@pytest.mark.parametrize("n_bytes", [1, 40, 90])
def test_a_truncated_file_is_continued(n_bytes: int, tmp_path: Path) -> None:
    """As after a kill while writing; a trial without all its values is made again, the same."""
    path = tmp_path / "study"
    with study(path) as first:
        expected = run_trials(first, 3)
    whole = path.read_bytes()
    third = whole.index(b'"op_code":4', sum(map(len, whole.splitlines(keepends=True)[:14])))
    path.write_bytes(whole[: third + n_bytes])
    with study(path) as second:
        n = len([trial for trial in second.trials() if trial.state == "complete"])
        assert n == 2 or n == 1
        left = [trial for trial in second.trials() if trial.state == "running"]
        for trial in left:
            second.complete(second.report(trial, 0.1, 1.0))
        run_trials(second, 1)
    with study(path) as third_run:
        assert [dict(trial.settings) for trial in third_run.trials()][: n + 1] == expected[: n + 1]


def test_a_study_of_another_search_is_refused(tmp_path: Path) -> None:
    """The sentence names the difference."""
    path = tmp_path / "study"
    with study(path) as first:
        run_trials(first, 1)
    with (
        pytest.raises(UsageError, match=r"its data is sha256:1, not sha256:2; give another --study"),
        study(path, spec={**SPEC, "data": "sha256:2"}),
    ):
        pass


def test_a_study_is_locked(tmp_path: Path) -> None:
    """A second search would make the same trials."""
    path = tmp_path / "study"
    with study(path), pytest.raises(UsageError, match="Another search is at work"), study(path):
        pass
    with study(path) as free:
        assert free.trials() == []


@pytest.mark.parametrize("content", [b"user,item\n", b'{"a": 1}\n'])
def test_another_file_is_not_changed(content: bytes, tmp_path: Path) -> None:
    """It is refused."""
    path = tmp_path / "ratings.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is no study of a search"), study(path):
        pass
    assert path.read_bytes() == content


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """Before anything is measured."""
    with pytest.raises(UsageError, match="cannot be written"), study(tmp_path / "nowhere" / "study"):
        pass
    assert list(tmp_path.iterdir()) == []
