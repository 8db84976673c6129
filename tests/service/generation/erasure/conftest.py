"""Folders of lists that tests of erasing share; each test changes a copy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.generation.bulk_users import BulkUsers
from service.generation.files.shard_format import Layout
from service.generation.lists.list_model import BulkModel
from service.generation.shard_source import ShardSource
from service.lists.list_request import ListRequest
from service.models.snapshot import ModelSnapshot
from telemetry.pseudonym import Pseudonymiser
from tests.support.models.generated_folders import N_USERS, generate


@pytest.fixture(scope="module")
def source(make_snapshot: Callable[..., ModelSnapshot]) -> ShardSource:
    snapshot = make_snapshot(n_users=N_USERS, n_items=60, seed=3)
    hidden = np.setdiff1d(np.arange(60), snapshot.seen_rows(13))
    return ShardSource(
        BulkModel(snapshot, ListRequest(5), hidden), BulkUsers.of_model(snapshot), 10, None, Pseudonymiser()
    )


@pytest.fixture(scope="module")
def made(source: ShardSource, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that returns a folder of a layout without some users, made once."""
    folders: dict[tuple[str, ...], Path] = {}
    root = tmp_path_factory.mktemp("made")

    def make(layout: Layout, *left_out: str) -> Path:
        key = (layout, *left_out)
        if key not in folders:
            folders[key] = generate(root / str(len(folders)), source, layout, left_out)
        return folders[key]

    return make
