"""Workers that share a fit of `next_item` give the model of one process, to the last bit."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from service.errors import TrainingDiverged
from service.executors.executor import using
from service.executors.local_executor import LocalExecutor
from service.models.history.weights import HistoryWeights
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.kernels.next_item.decayed_pairs import PairWeights, occurrences
from service.training.algorithms.kernels.next_item.decayed_tables import part_users, table_statistics
from service.training.algorithms.kernels.next_item.item_sequences import Sequences, of_users, sequences
from service.training.algorithms.kernels.next_item.pair_rows import pair_sums, rows_of, whole_rows
from service.training.algorithms.next_item import distributed_lists as distributed
from service.training.algorithms.next_item import list_form, next_item
from service.training.algorithms.next_item.checkpoint import NextItemCheckpoint
from service.training.algorithms.next_item.next_item import NextItemConfig
from service.training.assembly import history_entries
from service.training.checkpoints.folder import checkpoints_in
from service.training.data import datasets
from service.training.distributed import decayed_tables
from service.training.interactions import Float32, Float64, Interactions, no_progress
from tests.support.watched_workers import WatchedWorkers

HOW = PairWeights(window=9, long_weight=0.3, look_ahead=0.4, reverse=0.25)


@pytest.fixture(scope="module")
def data() -> Interactions:
    return datasets.read("demo:400x500x9000")


@pytest.fixture(scope="module")
def ordered(data: Interactions) -> Sequences:
    weights = HistoryWeights(half_life=2.0, window=9, long_half_life=20.0, long_weight=0.3)
    return sequences(history_entries(data), weights)


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of 128 items, as in much larger data."""
    monkeypatch.setattr(distributed, "_RANGE_COST", 1.0)


def regression(ordered: Sequences) -> tuple[Float64, Float64]:
    config = NextItemConfig(window=9)
    weights = HistoryWeights(half_life=2.0, window=9)
    return next_item.penalties(ordered.counts, config, weights), next_item.scales(ordered.counts, config)


def same(found: csr_array, expected: csr_array) -> bool:
    return all(
        getattr(found, part).tobytes() == getattr(expected, part).tobytes() for part in ("data", "indices", "indptr")
    )


@pytest.mark.parametrize("n_parts", [2, 5])
def test_sums_that_pass_from_users_to_users_are_those_of_a_single_pass(ordered: Sequences, n_parts: int) -> None:
    """To the last bit, for any rows."""
    gram, cross = whole_rows(ordered, occurrences(ordered), HOW)
    bounds = np.linspace(0, ordered.starts.size - 1, n_parts + 1).astype(int).tolist()
    before = None
    for start, stop in itertools.pairwise(bounds[:-1]):
        part = of_users(ordered, start, stop)
        before = pair_sums(part, occurrences(part), HOW, rows_of(130, 300, before))
    last = of_users(ordered, *bounds[-2:])
    found = whole_rows(last, occurrences(last), HOW, rows_of(130, 300, before))
    assert found[0].tobytes() == gram[130:300].tobytes()
    assert found[1].tobytes() == cross[130:300].tobytes()


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("whole_items", [1000, 0])
@pytest.mark.parametrize("part_entries", [1 << 25, 2000])
def test_workers_find_the_same_lists(
    workers: LocalExecutor, ordered: Sequences, whole_items: int, part_entries: int
) -> None:
    """Of all inputs or of few, with one part of the users or several; all values are given up in the end."""
    penalties, scales = regression(ordered)
    hows = [HOW, HOW._replace(reverse=0.0)]
    expected = [list_form.fit(ordered, how, penalties, scales, 20, whole_items=whole_items) for how in hows]
    before = set(workers._folder.iterdir())
    found = distributed.fit(
        workers, ordered, hows, penalties, scales, 20, whole_items=whole_items, part_entries=part_entries
    )
    assert [same(*each) for each in zip(found, expected, strict=True)] == [True, True]
    assert not same(found[0], found[1])
    assert set(workers._folder.iterdir()) == before


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("whole_items", [1000, 0])
@pytest.mark.parametrize("kept_by_workers", [False, True])
def test_kept_sums_are_not_made_again(
    workers: LocalExecutor,
    data: Interactions,
    ordered: Sequences,
    whole_items: int,
    kept_by_workers: bool,
    tmp_path: Path,
) -> None:
    """By threads from those of workers, and the other way round: the pairs do not count any more."""
    penalties, scales = regression(ordered)

    def lists(given: Sequences, by_workers: bool) -> csr_array:
        checkpoint = NextItemCheckpoint(data, NextItemConfig(), np.random.default_rng(0))
        if by_workers:
            (found,) = distributed.fit(
                workers, given, [HOW], penalties, scales, 20, whole_items=whole_items, checkpoint=checkpoint
            )
            return found
        return list_form.fit(given, HOW, penalties, scales, 20, whole_items=whole_items, checkpoint=checkpoint)

    nothing = np.zeros_like(ordered.inputs)
    with checkpoints_in(tmp_path, 0.0):
        expected = lists(ordered, kept_by_workers)
        assert expected.nnz
        assert same(lists(ordered._replace(inputs=nothing, targets=nothing), not kept_by_workers), expected)


class Sums:
    """Sums over pairs in so many arrays, for 500 items."""

    def __init__(self, n_arrays: int) -> None:
        self._arrays = [np.zeros((500, 1), np.float32)] * n_arrays

    def sums(self) -> list[Float32]:
        return self._arrays

    def keep_sums(self, sums: object) -> None:
        raise AssertionError("Known sums were made again.")


@pytest.mark.parametrize(("whole_items", "n_arrays"), [(1000, 6), (1000, 3), (0, 2), (0, 5)])
def test_kept_sums_are_read_by_the_number_of_items(
    workers: LocalExecutor, ordered: Sequences, whole_items: int, n_arrays: int
) -> None:
    """Not by how many arrays there are: those of another form are refused and never taken for these."""
    assert ordered.n_items == 500
    penalties, scales = regression(ordered)
    with pytest.raises(ValueError, match="values to unpack"):
        list_form.fit(ordered, HOW, penalties, scales, 20, whole_items=whole_items, checkpoint=Sums(n_arrays))
    with pytest.raises(ValueError, match="values to unpack"):
        distributed.fit(
            workers, ordered, [HOW], penalties, scales, 20, whole_items=whole_items, checkpoint=Sums(n_arrays)
        )


def test_no_task_reads_more_than_a_part_of_the_users(ordered: Sequences) -> None:
    """Parts are all users in order, and each has at most so many interactions."""
    parts = distributed.user_parts(ordered.starts, 2000)
    assert len(parts) == 5
    assert [user for start, stop in parts for user in range(start, stop)] == list(range(ordered.starts.size - 1))
    assert max(of_users(ordered, *bounds).items.size for bounds in parts) <= 2000


@given(counts=st.lists(st.integers(0, 10**6), min_size=1, max_size=2000), window=st.integers(1, 200))
def test_ranges_are_all_items_in_whole_blocks(counts: list[int], window: int) -> None:
    """A block of targets that are solved at once is in one range."""
    ranges = distributed.item_ranges(np.array(counts), window)
    assert [item for start, stop in ranges for item in range(start, stop)] == list(range(len(counts)))
    assert all(start < stop and start % list_form.SOLVED_TARGETS == 0 for start, stop in ranges)


def test_a_regression_without_a_solution_is_noticed_on_workers_too(workers: LocalExecutor, ordered: Sequences) -> None:
    """With the sentence that one process has."""
    penalties, scales = regression(ordered)
    with pytest.raises(TrainingDiverged, match="raise reg"):
        list_form.fit(ordered, HOW, -1e6 * penalties, scales, 20)
    with pytest.raises(TrainingDiverged, match="raise reg"):
        distributed.fit(workers, ordered, [HOW], -1e6 * penalties, scales, 20)


def test_statistics_in_a_basis_are_the_same(workers: LocalExecutor, ordered: Sequences) -> None:
    """Sums over parts of the users, added in their order."""
    table: Float32 = np.random.default_rng(0).standard_normal((500, 7), dtype=np.float32)
    expected = table_statistics(ordered, HOW, table)
    with using(workers):
        found = decayed_tables.statistics_in_basis(ordered, HOW, table)
    assert found.gram.tobytes() == expected.gram.tobytes()
    assert found.cross.tobytes() == expected.cross.tobytes()


def test_many_users_are_cut_into_more_parts() -> None:
    """Four parts of up to 65,536 users each, then parts of so many, and 64 of them at most."""
    assert [-(-n // part_users(n)) for n in (1, 3, 400, 1 << 18, 1 << 20, 10**8)] == [1, 3, 4, 4, 16, 64]


def fitted(data: Interactions, config: NextItemConfig) -> ModelSnapshot:
    return next_item.fit(data, config, np.random.default_rng(3), no_progress)


@pytest.mark.usefixtures("small_ranges")
def test_killed_workers_change_no_byte(workers: LocalExecutor, watched: WatchedWorkers, data: Interactions) -> None:
    """In the sums, the solutions, or the choice of settings: lists and settings are those of one process."""
    expected = fitted(data, NextItemConfig())
    watched.events.clear()
    watched.kill_when(lambda event: (event.stage, event.task) == ("next_item: pairs", 1))
    watched.kill_when(lambda event: event.stage == "next_item: solutions")
    watched.kill_when(lambda event: event.stage == "next_item: validation")
    with using(workers):
        found = fitted(data, NextItemConfig())
    assert {event.stage for event in watched.deaths()} >= {
        "next_item: pairs",
        "next_item: solutions",
        "next_item: validation",
    }
    assert found.settings == expected.settings
    assert found.neighbourhood is not None
    assert expected.neighbourhood is not None
    assert same(found.neighbourhood.weights, expected.neighbourhood.weights)


def test_factors_and_the_choice_between_forms_are_the_same(workers: LocalExecutor, data: Interactions) -> None:
    """Each candidate draws what it draws in one process."""
    config = NextItemConfig(form="factors", n_factors=12)
    expected = fitted(data, config)
    with using(workers):
        found = fitted(data, config)
    assert found.settings == expected.settings
    assert found.user_factors.tobytes() == expected.user_factors.tobytes()
    assert found.item_factors.tobytes() == expected.item_factors.tobytes()
