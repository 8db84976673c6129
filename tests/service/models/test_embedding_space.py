"""A fingerprint changes with what the products of vectors depend on, and with nothing else."""

from typing import Any

import pytest

from service.models.embedding_space import embedding_space

ITEM_ARRAYS = ("item_ids", "item_id_offsets", "item_factors", "item_bias")


def manifest(**networks: str) -> dict[str, Any]:
    arrays = {name: {"sha256": name} for name in (*ITEM_ARRAYS, "user_factors", "popularity")}
    described = {name: {"sha256": checksum} for name, checksum in networks.items()}
    return {"n_factors": 8, "arrays": arrays, "networks": described or None}


def changed(original: dict[str, Any], part: str, name: str) -> dict[str, Any]:
    return {**original, part: {**original[part], name: {"sha256": "other"}}}


def test_it_is_that_of_the_item_table() -> None:
    """Users may change, as they do in a copy without an erased one."""
    space = embedding_space(manifest())
    assert space is not None
    assert len(space) == 16
    for name in ITEM_ARRAYS:
        assert embedding_space(changed(manifest(), "arrays", name)) != space
    for name in ("user_factors", "popularity"):
        assert embedding_space(changed(manifest(), "arrays", name)) == space
    assert embedding_space({**manifest(), "n_factors": 7}) != space
    # A tower of users alone leaves the items as they are.
    assert embedding_space(manifest(user_tower="u")) == space


def test_it_is_that_of_the_towers_if_items_have_one() -> None:
    """Versions with other items have the same space, and with another ranker."""
    towers = manifest(user_tower="u", item_tower="i", ranker="r")
    space = embedding_space(towers)
    assert space not in {None, embedding_space(manifest())}
    assert embedding_space(changed(towers, "arrays", "item_factors")) == space
    assert embedding_space(changed(towers, "networks", "ranker")) == space
    for name in ("user_tower", "item_tower"):
        assert embedding_space(changed(towers, "networks", name)) != space


@pytest.mark.parametrize("one", [{}, {"n_factors": 0}, {"n_factors": 8}, {"n_factors": 8, "arrays": {"item_ids": 7}}])
def test_what_has_no_item_table_has_no_space(one: dict[str, Any]) -> None:
    """An unpublished model, one with neighbours, and a manifest that lacks checksums."""
    assert embedding_space(one) is None
