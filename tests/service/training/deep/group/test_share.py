import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.training.deep.group.share import ALONE, Share


@given(n=st.integers(0, 50), size=st.integers(1, 9))
def test_shares_are_all_rows_once(n: int, size: int) -> None:
    """In parts of nearly one size; of fewer rows than processes, each has all, and their terms count so often."""
    parts = [Share(rank, size).rows(n) for rank in range(size)]
    assert {part.n_terms for part in parts} == {sum(part.size for part in parts)}
    if n >= size:
        assert [row for part in parts for row in range(n)[part.places]] == list(range(n))
        assert max(part.size for part in parts) - min(part.size for part in parts) <= 1
        assert all(part.are_all == (size == 1) for part in parts)
    else:
        assert all(part.are_all and part.n_copies == size for part in parts)


@given(work=st.lists(st.integers(0, 60), max_size=40), size=st.integers(1, 5))
def test_shares_by_work_are_all_rows_once(work: list[int], size: int) -> None:
    """No part has more than its share of the work and one row, unless all have all."""
    parts = [Share(rank, size).rows_by_work(np.array(work, dtype=np.int64)) for rank in range(size)]
    assert {part.n_terms for part in parts} == {sum(part.size for part in parts)}
    if parts[0].n_copies == 1:
        assert [row for part in parts for row in range(len(work))[part.places]] == list(range(len(work)))


def test_work_is_shared_evenly() -> None:
    """One user with half of all ratings is a part."""
    work = np.array([5, 5, 10, 20, 5, 5, 5, 5])
    assert [Share(rank, 3).rows_by_work(work).places for rank in range(3)] == [slice(0, 3), slice(3, 4), slice(4, 8)]
    assert ALONE.rows_by_work(work).are_all
