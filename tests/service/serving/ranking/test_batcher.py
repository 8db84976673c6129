"""Requests of one turn of the event loop are ranked together without affecting each other."""

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from service.models.ranking import scoring
from service.models.ranking.scoring import Ranking, TopNRequest
from service.models.snapshot import ModelSnapshot
from service.serving.ranking.batcher import Batcher
from service.serving.ranking.kept_rankings import KeptRankings

Make = Callable[..., ModelSnapshot]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ModelSnapshot, int]]:
    """The batches in order, as (model, number of lists)."""
    seen: list[tuple[ModelSnapshot, int]] = []
    real = scoring.personal

    def spy(snapshot: ModelSnapshot, wanted: Sequence[TopNRequest]) -> list[Ranking]:
        seen.append((snapshot, len(wanted)))
        return real(snapshot, wanted)

    monkeypatch.setattr(scoring, "personal", spy)
    return seen


def same(ours: Ranking, theirs: Ranking) -> bool:
    return np.array_equal(ours.rows, theirs.rows) and np.array_equal(ours.scores, theirs.scores)


async def test_one_turn_is_one_batch_with_unchanged_lists(
    make_snapshot: Make, batches: list[tuple[ModelSnapshot, int]]
) -> None:
    """Each list equals the one ranked by itself, bit for bit."""
    snapshot = make_snapshot()
    batcher = Batcher()
    wanted = [TopNRequest(user, 5 + user) for user in range(7)]
    rankings = await asyncio.gather(*(batcher.personal(snapshot, want) for want in wanted))
    assert batches == [(snapshot, 7)]
    for ranking, want in zip(rankings, wanted, strict=True):
        assert same(ranking, scoring.personal(snapshot, [want])[0])


async def test_a_swap_within_a_turn_splits_the_batch(
    make_snapshot: Make, batches: list[tuple[ModelSnapshot, int]]
) -> None:
    """Requests before the swap use the old model, later ones the new model, of another size."""
    old, new = make_snapshot(seed=1), make_snapshot(n_items=90, seed=2)
    batcher = Batcher()
    asked = [(old, 0), (old, 1), (new, 1), (new, 2)]
    rankings = await asyncio.gather(*(batcher.personal(snapshot, TopNRequest(user, 10)) for snapshot, user in asked))
    assert batches == [(old, 2), (new, 2)]
    for ranking, (snapshot, user) in zip(rankings, asked, strict=True):
        assert same(ranking, scoring.personal(snapshot, [TopNRequest(user, 10)])[0])


async def test_an_error_reaches_the_requests_of_its_batch_only(make_snapshot: Make) -> None:
    """An unknown user row fails its batch; the batch of another model and later batches succeed."""
    good, other = make_snapshot(seed=1), make_snapshot(seed=2)
    batcher = Batcher()
    results = await asyncio.gather(
        batcher.personal(good, TopNRequest(0, 5)),
        batcher.personal(other, TopNRequest(1, 5)),
        batcher.personal(other, TopNRequest(99, 5)),
        batcher.personal(good, TopNRequest(3, 5)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [Ranking, IndexError, IndexError, Ranking]
    assert len((await batcher.personal(good, TopNRequest(4, 5))).rows) == 5


async def test_a_cancelled_request_does_not_affect_the_others(make_snapshot: Make) -> None:
    """Its list is ranked and discarded."""
    snapshot = make_snapshot()
    batcher = Batcher()
    given_up = batcher.personal(snapshot, TopNRequest(0, 5))
    kept = batcher.personal(snapshot, TopNRequest(1, 5))
    given_up.cancel()
    assert same(await kept, scoring.personal(snapshot, [TopNRequest(1, 5)])[0])
    with pytest.raises(asyncio.CancelledError):
        await given_up


async def test_many_requests_are_split_into_batches(
    make_snapshot: Make, batches: list[tuple[ModelSnapshot, int]]
) -> None:
    """A batch has at most 32 lists."""
    snapshot = make_snapshot()
    batcher = Batcher()
    await asyncio.gather(*(batcher.personal(snapshot, TopNRequest(user % 7, 3)) for user in range(70)))
    assert [count for _, count in batches] == [32, 32, 6]


async def test_a_list_that_was_ranked_before_is_not_ranked_again(
    make_snapshot: Make, batches: list[tuple[ModelSnapshot, int]]
) -> None:
    """A shorter or longer one of a trained user either; a new model, an exclusion and a live event rank anew."""
    snapshot, other = make_snapshot(seed=1), make_snapshot(seed=2)
    batcher = Batcher()
    alone = {n: scoring.personal(snapshot, [TopNRequest(2, n)])[0] for n in (5, 31, 32)}
    batches.clear()
    for n in (5, 31, 5):
        assert same(await batcher.personal(snapshot, TopNRequest(2, n)), alone[n])
    assert len(batches) == 1
    assert same(await batcher.personal(snapshot, TopNRequest(2, 32)), alone[32])
    best = alone[5].rows[:1]
    without_best = await batcher.personal(snapshot, TopNRequest(2, 4, exclude=best))
    assert without_best.rows.tolist() == alone[5].rows[1:].tolist()
    user = snapshot.trained_user(3)
    assert same(
        await batcher.personal(snapshot, TopNRequest(2, 5, user=user)),
        scoring.personal(snapshot, [TopNRequest(3, 5)])[0],
    )
    assert same(await batcher.personal(other, TopNRequest(2, 5)), scoring.personal(other, [TopNRequest(2, 5)])[0])
    assert same(await batcher.personal(snapshot, TopNRequest(2, 5)), alone[5])


async def test_a_bounded_number_of_lists_is_kept(make_snapshot: Make) -> None:
    snapshot = make_snapshot()
    kept = KeptRankings(most=2)
    for user in range(5):
        request = TopNRequest(user, 4)
        assert kept.find(snapshot, request) is None
        kept.keep(snapshot, user, scoring.personal(snapshot, [request._replace(n=31)])[0])
        found = kept.find(snapshot, request)
        assert found is not None
        assert same(found, scoring.personal(snapshot, [request])[0])
