from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.errors import TrainingDiverged
from service.models.snapshot import ModelSnapshot
from service.training.algorithms import registry
from service.training.data import datasets
from service.training.hold_out.split import HoldOut, hold_out
from service.training.interactions import Interactions, Progress, no_progress
from service.training.selection.candidates import CANDIDATES, RECENCY_PROBES, Candidate, adapted
from service.training.selection.selection import Selection, budget_for, sampled_users, select
from tests.support.interactions import rated, triples

SEED = np.random.SeedSequence(0)
DEMO = "demo:300x200x9000"


def split_of(data: Interactions) -> HoldOut | None:
    return hold_out(data, np.random.default_rng(0))


def selected(data: Interactions, candidates: tuple[Candidate, ...] = CANDIDATES, budget_s: float = 3000) -> Selection:
    return select(data, split_of(data), budget_s=budget_s, seed=SEED, progress=no_progress, candidates=candidates)


def test_every_candidate_is_measured_and_the_best_chosen() -> None:
    """The demo data has structure; all are judged by the same users."""
    selection = selected(datasets.read(DEMO))
    assert [result.candidate.name for result in selection.results] == [each.name for each in CANDIDATES]
    qualities = [result.quality for result in selection.results]
    assert all(quality is not None for quality in qualities)
    sizes = {quality.by_user.size for quality in qualities if quality is not None}
    assert sizes == {300}
    shown = selection.as_json()
    best = max(row["ndcg@10"] for row in shown["candidates"])
    assert shown["chosen"] != "popularity"
    assert selection.choice.quality is not None
    assert selection.choice.quality.ndcg >= best / 1.05
    assert shown["holdout"] == {"split": "time-per-user", "share": 0.1, "n": shown["holdout"]["n"], "users": 300}


def test_a_candidate_is_cut_off_when_it_would_take_longer_than_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as its pace shows that: 2 s for each of 5 epochs. The others are chosen from, and the table says why."""
    now_s, reached = 0.0, []
    real = registry.get

    def crawl(data: Interactions, config: Any, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
        nonlocal now_s
        for epoch in range(1, 6):
            now_s += 2
            progress("fit", epoch, 5)
            reached.append(epoch)
        raise TrainingDiverged("It was not ended.")

    def get(name: str) -> registry.Algorithm:
        return replace(real(name), fit=crawl) if name == "ials" else real(name)

    monkeypatch.setattr(registry, "get", get)
    data = datasets.read(DEMO)
    candidates = (Candidate("popularity"), Candidate("ials"), Candidate("pure_svd"))
    selection = select(
        data,
        split_of(data),
        budget_s=7,
        seed=SEED,
        progress=no_progress,
        candidates=candidates,
        clock=lambda: now_s,
    )
    assert reached == [1]
    assert selection.results[1].why_not == "It would take about 10 s, and there were 7.0 s."
    assert selection.results[1].fit_s == 4
    assert selection.choice.candidate.name == "pure_svd"


def test_without_time_popularity_is_served() -> None:
    """It costs nothing, and the others are listed with the reason."""
    selection = selected(datasets.read(DEMO), budget_s=0)
    assert [result.quality is not None for result in selection.results] == [True] + [False] * (len(CANDIDATES) - 1)
    assert {result.why_not for result in selection.results[1:]} == {"The time was used up."}
    assert selection.choice.candidate.name == "popularity"


def test_what_cannot_be_estimated_from_progress_is_estimated_from_the_size() -> None:
    """A matrix of items by items is one long step."""
    huge = Candidate("ease", cubic_s=1.0)
    selection = selected(datasets.read(DEMO), (Candidate("popularity"), huge), budget_s=60)
    assert selection.results[1].why_not == "It would take about 8000000 s, and there were 60 s."


def test_a_candidate_that_fails_costs_its_row() -> None:
    """The reason is in the table."""
    bad = Candidate("svd", ("lr_all=10",))
    selection = selected(datasets.read(DEMO), (Candidate("popularity"), bad, Candidate("pure_svd")))
    assert selection.results[1].why_not is not None
    assert selection.results[1].why_not.startswith("svd diverged in epoch 1")
    assert selection.choice.candidate.name == "pure_svd"


@pytest.mark.parametrize(
    "rows",
    [
        [(0, item, 1.0) for item in range(40)],  # one user
        [(user, 0, 1.0) for user in range(40)],  # one item
        [(user, user, 1.0) for user in range(40)],  # everyone has one of their own
        [(0, 0, 1.0)],
        [(user, item, 1.0) for user in range(12) for item in range(6)],  # everyone has everything
        [(user, item, 1.0) for user in range(12) for item in range(6) if user != item],
    ],
)
@pytest.mark.parametrize("timed", [False, True])
def test_data_without_anything_to_learn(rows: list[tuple[int, int, float]], *, timed: bool) -> None:
    """Popularity, or what is no worse than it on the hold-out; never an error."""
    data = rated(rows, times=list(range(len(rows))) if timed else None)
    selection = selected(data)
    if selection.choice.candidate.name != "popularity":
        baseline = selection.results[0].quality
        assert selection.choice.quality is not None
        assert baseline is not None
        assert selection.choice.quality.ndcg > baseline.ndcg


@pytest.mark.parametrize(("recent", "lasting", "settings"), [(0.3, 0.2, ()), (0.2, 0.3, ("half_life=0",))])
def test_whether_recency_counts_is_found_out_once(recent: float, lasting: float, settings: tuple[str, ...]) -> None:
    """By a cheap candidate; a candidate that does not ask, or whose probes were not measured, keeps its own."""
    candidate = Candidate("ials", follows_recency=True)
    ndcg_of = {RECENCY_PROBES[0].label: recent, RECENCY_PROBES[1].label: lasting}
    assert adapted(candidate, ndcg_of, has_times=True).settings == settings
    assert adapted(Candidate("ials"), ndcg_of, has_times=True).settings == ()
    assert adapted(candidate, {RECENCY_PROBES[1].label: lasting}, has_times=True).settings == ()
    assert adapted(candidate, {}, has_times=False).settings == ("half_life=0",)


def test_without_times_nothing_is_measured_twice() -> None:
    """What differs by times only is the same as the candidate before it."""
    data = replace(datasets.read(DEMO), timestamps=None)
    candidates = (*CANDIDATES[:1], *RECENCY_PROBES, Candidate("ease", follows_recency=True))
    labels = [result.candidate.label for result in selected(data, candidates).results]
    assert labels == ["popularity", "pure_svd", "ease half_life=0"]


def test_a_large_set_is_represented_by_some_users() -> None:
    """With all of their interactions; the figures say so."""
    data = datasets.read(DEMO)
    sample = sampled_users(data, 3000, np.random.default_rng(0))
    assert 2000 < len(sample) <= 3000
    assert len(sample.users) < 200
    assert set(triples(sample)) == {row for row in triples(data) if row[0] in set(sample.users.id_of)}
    assert triples(sampled_users(data, 9000, np.random.default_rng(0))) == triples(data)
    selection = select(data, split_of(data), budget_s=300, seed=SEED, progress=no_progress, most_rows=3000)
    assert selection.n_users is not None
    assert selection.n_users < 200
    assert selection.as_json()["sampled_users"] == selection.n_users


def test_small_sets_get_less_time() -> None:
    """And large ones more: their share of that of a million interactions or 4,000 items, from 15 % to five times."""
    assert budget_for(100, 50, 60) == budget_for(100_000, 1_000, 60) == 9
    assert budget_for(500_000, 50, 60) == 30
    assert budget_for(100, 2_000, 60) == 15
    assert budget_for(1_000_000, 50, 60) == budget_for(100_000, 4_000, 60) == 60
    assert budget_for(2_000_000, 50, 60) == budget_for(100_000, 8_000, 60) == 120
    assert budget_for(20_000_000, 50, 60) == budget_for(100_000, 90_000, 60) == 300
