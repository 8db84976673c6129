"""Lists that an item index has chosen, made again."""

from dataclasses import replace
from pathlib import Path

import pytest

from service.catalogue.catalogue import of_model
from service.lists.filters.masks import FilterMasks
from service.lists.item_scores import ListUser
from service.lists.list_request import ListRequest
from service.lists.pipeline import ListModel, make_list
from service.models.files import artefact
from service.models.index.library import MISSING
from service.models.publication import publication
from service.models.publication.index_building import IndexRules
from service.models.snapshot import ModelSnapshot
from service.replay.evidence import Evidence
from service.replay.rebuilding import Rebuilder, Rebuilt
from service.serving.lists.ranked_list import RankedList
from telemetry.events import Served
from telemetry.ids import uuid7
from telemetry.pseudonym import Pseudonymiser
from tests.support.models.clustered_model import N_USERS, clustered_model

pytest.importorskip("faiss", reason="The extra `ann` is not installed.")

NOW_S = 1_800_000_000.0


def served(model: ModelSnapshot, user_row: int) -> Served:
    """Make a list as a replica does, and return its event."""
    catalogue = of_model(model.items, model.item_records)
    request, id_ = ListRequest(20, f"u{user_row}", 3), uuid7()
    made = make_list(ListModel(model, catalogue, FilterMasks()), request, ListUser(user_row), NOW_S, id_)
    ranked = RankedList(request, model, made, catalogue)
    return ranked.event(id_, None, request_id=id_, pseudonym=f"u{user_row}", served_at_s=NOW_S, latency_ms=1.0)


def made_again(model: ModelSnapshot, event: Served) -> Rebuilt:
    rebuilder = Rebuilder(
        lambda _version: model, Evidence(), Pseudonymiser(), events_per_user=10, seen_types=frozenset({"rating"})
    )
    return rebuilder.as_served(event)


def test_a_list_of_an_item_index_is_made_again_with_it_alone(tmp_path: Path) -> None:
    """An exact list might hold an item that the index missed, so that without the index there is a reason instead."""
    version = publication.publish(tmp_path, clustered_model(), data={}, measures={}, index_rules=IndexRules(1_000))
    model = artefact.load(tmp_path / version)
    assert model.item_index is not None
    for user_row in range(0, N_USERS, 6):
        event = served(model, user_row)
        again = made_again(artefact.load(tmp_path / version), event)
        assert again.problem == ""
        found = [(item.item_id, item.score) for item in again.items]
        assert found == list(zip(event.items.item_id, event.items.score, strict=True))
        without = made_again(replace(model, item_index=None), event)
        assert without.problem == f"Its model has an item index, which cannot be used here. {MISSING}"
