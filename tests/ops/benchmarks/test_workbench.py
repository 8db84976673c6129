import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from ops.benchmarks import cli
from ops.benchmarks.workbench import Workbench, answers, event_counts, pinned, scrape, two_cores, wait_until_archived
from ops.console.command_runner import run
from service.errors import RunError, UsageError
from service.models.snapshot import ModelSnapshot
from telemetry.stream.redis_check import check_redis


def test_a_pinned_block_pins_its_children_and_nothing_after_it() -> None:
    """The cores of before are restored."""
    before = os.sched_getaffinity(0)
    core = max(before)
    with pinned({core}):
        inside = subprocess.check_output([sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], text=True)
    assert inside.strip() == str({core})
    assert os.sched_getaffinity(0) == before


def test_one_core_is_not_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """Server and generator need one each."""
    with pinned({min(os.sched_getaffinity(0))}):
        with pytest.raises(UsageError, match="two cores"):
            two_cores()
        assert run(cli.app, ["recommend"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_part_that_does_not_become_ready_is_named(tmp_path: Path) -> None:
    """With its last line of output."""
    with (
        Workbench(tmp_path, os.environ) as workbench,
        pytest.raises(RunError, match="replica did not become ready: no such"),
    ):
        workbench.start("replica", [sys.executable, "-c", "raise SystemExit('no such luck')"], lambda: False)


def test_every_started_process_is_stopped(tmp_path: Path) -> None:
    """Even if the benchmark fails."""
    urls: list[str] = []

    def fail() -> None:
        with Workbench(tmp_path, os.environ) as workbench:
            urls.append(workbench.start_redis())
            assert asyncio.run(check_redis(urls[0], "recollect")).unreachable is None
            raise RunError("the benchmark failed")

    with pytest.raises(RunError, match="the benchmark failed"):
        fail()
    assert asyncio.run(check_redis(urls[0], "recollect")).unreachable is not None


def test_settings_of_the_operator_do_not_apply(tmp_path: Path) -> None:
    """State and logs go to the scratch directory, and libraries run one thread."""
    environ = {**os.environ, "RECOLLECT_HOME": "/elsewhere", "RECOLLECT_PORT": "1"}
    show = "import os; [print(k, v) for k, v in sorted(os.environ.items()) if 'RECOLLECT' in k or 'THREADS' in k]"
    with Workbench(tmp_path, environ) as workbench:
        out = tmp_path / "show.out"
        workbench.start("show", [sys.executable, "-c", show], lambda: b"RECOLLECT_LOGS" in out.read_bytes())
        lines = out.read_text().splitlines()
    assert f"RECOLLECT_HOME {tmp_path / 'home'}" in lines
    assert "OMP_NUM_THREADS 1" in lines
    assert not any("RECOLLECT_PORT" in line for line in lines)


def test_a_list_of_a_workbench_is_archived(
    tmp_path: Path, make_snapshot: Callable[..., ModelSnapshot], publish_snapshot: Callable[..., str]
) -> None:
    """By its consumer; the metrics of replica and consumer agree."""
    publish_snapshot(tmp_path / "home" / "models", make_snapshot())
    with Workbench(tmp_path, os.environ) as workbench:
        redis_url = workbench.start_redis()
        consumer_admin_port = workbench.start_consumer(redis_url)
        port, replica_admin_port = workbench.start_replica(redis_url)
        for _ in range(3):
            assert answers(port, "/v1/recommendations/u1")
        wait_until_archived([replica_admin_port])
        assert event_counts(replica_admin_port, consumer_admin_port) == {
            "accepted": 3,
            "dropped": 0,
            "archived": 3,
        }
    with pytest.raises(RunError, match="metrics at"):
        scrape(replica_admin_port)


async def test_a_stopped_redis_keeps_its_data(tmp_path: Path) -> None:
    """It does not listen while stopped, and loads its file when started; also beside a running event loop."""
    with Workbench(tmp_path, os.environ) as workbench:
        url = workbench.start_redis()
        with redis.Redis.from_url(url) as client:
            client.set("kept", "yes")
            with workbench.without_redis(), pytest.raises(redis.ConnectionError):
                client.ping()
            assert client.get("kept") == b"yes"
