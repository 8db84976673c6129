"""The replica that the generated requests of this folder are sent to."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.config import Config
from service.metrics import Metrics
from service.models.files import artefact
from service.models.snapshot import ModelSnapshot
from service.serving.model.store import ModelStore
from service.serving.replica.context import ReplicaContext
from telemetry.producer import Producer
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from tests.support.replicas.listening_replica import ListeningReplica


@pytest.fixture(scope="module")
def replica(
    tmp_path_factory: pytest.TempPathFactory,
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Callable[[Path, ModelSnapshot], str],
) -> Iterator[ListeningReplica]:
    config = Config(home=tmp_path_factory.mktemp("fuzz"))
    version = publish_snapshot(config.models_dir, make_snapshot(n_items=60))
    producer = Producer(config.spool_dir, 0, config.producer, MemoryStream(MemoryServer()))
    replica = ListeningReplica(
        ReplicaContext(config, ModelStore(artefact.load(config.models_dir / version)), producer, Metrics())
    )
    yield replica
    replica.close()
