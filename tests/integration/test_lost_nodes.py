"""The drill of several machines, short: real nginx, replicas, Redis, consumers and keepalived on three nodes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.nodes.nodes_drill import NodesDrill, NodesPlan
from ops.nodes.nodes_report import described
from service.models.snapshot import ModelSnapshot
from tests.support.machines.real_nodes import require_nodes

QUICK = {
    "RECOLLECT_BALANCERS": "1",
    "RECOLLECT_SPARES": "0",
    "RECOLLECT_CONSUMER_HEARTBEAT_S": "0.5",
    "RECOLLECT_CONSUMER_TAKEOVER_S": "2",
    # The test is about what fails, and not about how fast a busy machine answers.
    "RECOLLECT_LIST_TIMEOUT_MS": "600",
}


async def test_a_node_loses_its_power_and_nothing_acknowledged_is_lost(
    tmp_path: Path,
    make_snapshot: Callable[[], ModelSnapshot],
    publish_snapshot: Callable[[Path, ModelSnapshot], str],
) -> None:
    """The node with the address dies under load; no request fails with one retry, and its disk brings its events."""
    require_nodes()
    if shutil.which("keepalived") is None and os.environ.get("CI") != "true":
        pytest.skip("There is no keepalived here (on Debian: apt-get install keepalived).")
    models = tmp_path / "models"
    publish_snapshot(models, make_snapshot())
    sentences: list[str] = []
    plan = NodesPlan(models, rate_rps=40.0, victims=("one",), quiet_s=2.0, off_s=4.0, replicas=1, settings=QUICK)
    report = await NodesDrill(plan, sentences.append).run()
    (loss,) = report.losses
    assert loss.address_s is not None, sentences
    assert report.failed == {}, (report, sentences)
    assert report.kept, (report, sentences)
    assert report.acknowledged > 100
    assert "lost: 0; twice in the archive: 0" in described(report)
