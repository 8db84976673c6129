"""The promise of live lists, on a whole installation: real replicas, balancer, Redis and consumer."""

import asyncio
from pathlib import Path

from ops.benchmarks.freshness.live_freshness import PHASES, FreshnessPlan, measure
from tests.integration.installation import DATA


def test_every_replica_answers_to_every_event_within_a_second(tmp_path: Path) -> None:
    """While all runs, through a rolling restart and model swaps; after kills of the consumer within five seconds.

    And after Redis lost everything, and after a restart of everything, each replica knows the same of every user.
    """
    plan = FreshnessPlan(data=DATA, replicas=2, lists_per_s=30, events_per_s=20, probes_per_s=10, seconds=1.5)
    said: list[str] = []
    result = asyncio.run(measure(plan, tmp_path, said.append))
    assert list(result.broken_promises(plan.phases)) == []
    for phase in PHASES:
        assert len(result.probes[phase.name]) > 10
        assert {name for probe in result.probes[phase.name] for name in probe.delays_s} == {"replica-0", "replica-1"}
        assert result.load[phase.name] == {}
    assert any("FLUSHALL" in sentence for sentence in said)
