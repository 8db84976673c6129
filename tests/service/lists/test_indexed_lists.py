"""Lists of a model with an item index: those without it, but for what the index misses."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lists import retrieval
from service.lists.boosts import BoostFactors
from service.lists.candidates import Candidates
from service.lists.filters.masks import FilterMask, FilterMasks
from service.lists.item_scores import ListUser, of_user
from service.lists.list_request import ListRequest
from service.lists.pipeline import ListModel, make_list, plain_list
from service.models.index.item_index import ItemIndex
from service.models.publication.index_building import IndexRules, build
from service.models.ranking import scoring
from service.models.ranking.personal_lists import personal
from service.models.ranking.scoring import TopNRequest
from tests.support.models.attribute_columns import Attributes
from tests.support.models.clustered_model import N_USERS, clustered_model
from tests.support.models.list_world import ListCatalogue, networks

pytest.importorskip("faiss", reason="The extra `ann` is not installed.")


@cache
def worlds(kind: str) -> tuple[ListModel, ListModel]:
    """A model whose index searches every cell, and so misses nothing, and the same without an index."""
    model = clustered_model(2_000)
    if kind == "ranked":
        model = replace(model, networks=networks(model.n_factors))
    built = build(model, IndexRules(1_000))
    assert built.index is not None
    everything = ItemIndex(built.index.index, built.index.n_lists)
    rng = np.random.default_rng(2)
    attributes: list[Attributes] = [{"year": int(year)} for year in rng.integers(1950, 2020, 2_000)]
    catalogue = ListCatalogue(attributes, sorted(rng.choice(2_000, 30, replace=False).tolist()))
    found = [ListModel(one, catalogue, FilterMasks()) for one in (replace(model, item_index=everything), model)]
    return found[0], found[1]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["factors", "ranked"]),
    st.integers(0, N_USERS - 1),
    st.integers(1, 60),
    st.integers(0, 50),
    st.sampled_from([None, "year >= 1985", "year > 2010", "year == 1999", "year < 3000"]),
    st.sampled_from([0.0, 0.5]),
    st.sets(st.integers(0, 1_999), max_size=20),
)
def test_an_index_that_searches_every_cell_changes_no_list(
    kind: str, user_row: int, n: int, offset: int, filter_text: str | None, diversity: float, excluded: set[int]
) -> None:
    """Filters of any width, exclusions, hidden and seen items, pages and diversity, with a ranker and without."""
    indexed, exact = worlds(kind)
    request = ListRequest(
        n,
        f"u{user_row}",
        offset,
        exclude=[f"i{row}" for row in sorted(excluded)],
        filter=filter_text,
        diversity=diversity,
        pins=(),
    )
    user = ListUser(user_row)
    found, expected = (make_list(model, request, user, 7.0) for model in (indexed, exact))
    assert found.rows == expected.rows
    assert found.scores.tolist() == expected.scores.tolist()
    assert (found.shortfall, found.has_more) == (expected.shortfall, expected.has_more)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["factors", "ranked"]), st.integers(0, N_USERS - 1), st.integers(1, 40), st.integers(0, 30))
def test_a_plain_list_is_that_of_the_pipeline(kind: str, user_row: int, n: int, offset: int) -> None:
    """To the last bit, though one goes through the batcher and the other through all stages."""
    indexed, _ = worlds(kind)
    request = ListRequest(n, f"u{user_row}", offset)
    hidden = indexed.catalogue.unavailable_rows(7.0)
    (ranking,) = personal(indexed.snapshot, [TopNRequest(user_row, n + 1, offset, hidden)])
    plain = plain_list(indexed.snapshot, request, ListUser(user_row), hidden, ranking)
    made = make_list(indexed, request, ListUser(user_row), 7.0)
    assert plain.rows == made.rows
    assert plain.scores.tolist() == made.scores.tolist()
    assert list(plain.sources) == list(made.sources)


def test_an_item_may_be_boosted_from_anywhere() -> None:
    """A list with boosts is exact: what a boost brings to the top may be in a cell far away."""
    indexed, exact = worlds("factors")
    worst = int(np.argmin(scoring.exact_scores(exact.snapshot, 0, np.arange(2_000))))
    mask = np.zeros(2_000, dtype=bool)
    mask[worst] = True
    boosts = BoostFactors(2_000, [(FilterMask(mask), 0.001)])
    lists = [
        retrieval.best(
            of_user(model.snapshot, ListUser(0)), Candidates(2_000), boosts, model.snapshot.popular_ranks, 10
        )
        for model in (indexed, exact)
    ]
    assert lists[0].rows.tolist() == lists[1].rows.tolist()
