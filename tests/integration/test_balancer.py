"""`balance` with real nginx and stand-in replicas, while processes die, drain and restart."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loadbalancer.supervision.processes import group_members
from ops.commands.balance import restart
from service.config import Config
from service.models.snapshot import ModelSnapshot
from tests.integration.balanced import BalancedInstallation, free_port, new_installation
from tests.integration.load import Load, until
from tests.support.machines.programs import need_programs


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[BalancedInstallation]:
    """An installation that is not started."""
    made = new_installation(tmp_path)
    yield made
    made.end()


@pytest.fixture
def running(installation: BalancedInstallation) -> BalancedInstallation:
    """An installation of three replicas, all ready."""
    installation.start_and_wait()
    return installation


# --- while replicas come and go


async def test_killing_a_replica_fails_no_request(
    running: BalancedInstallation, await_until: Callable[..., object]
) -> None:
    """It is restarted on the same port, and clients without retries get no error."""
    before = running.rows()["replica-1"]
    async with Load(running.port) as load:
        await load.more(100)
        os.kill(running.pid("replica-1"), signal.SIGKILL)
        await until(lambda: running.rows()["replica-1"].restarts == 1)
        await until(lambda: running.rows()["replica-1"].state == "ready")
        await load.more(200)
    after = running.rows()["replica-1"]
    assert load.failures == []
    assert (after.port, after.admin_port) == (before.port, before.admin_port)
    assert after.pid != before.pid


async def test_freezing_a_replica_fails_no_request(running: BalancedInstallation) -> None:
    """Its connections stay open without an answer; nginx asks another replica, and soon sends it few requests."""
    async with Load(running.port) as load:
        await load.more(100)
        os.kill(running.pid("replica-1"), signal.SIGSTOP)
        await load.more(400)
        os.kill(running.pid("replica-1"), signal.SIGCONT)
        await load.more(100)
    assert load.failures == []
    assert running.rows()["replica-1"].restarts == 0


def test_readiness_is_known_at_once_while_a_replica_is_frozen(running: BalancedInstallation) -> None:
    """Within a second: if a check ended before nginx gives the replica up, all later ones would ask it again."""
    ready = [
        "curl",
        "--silent",
        "--fail",
        "--noproxy",
        "*",
        "--max-time",
        "1",
        f"http://127.0.0.1:{running.port}/readyz",
    ]

    def statuses() -> list[int]:
        return [subprocess.run(ready, stdout=subprocess.DEVNULL, check=False).returncode for _ in range(6)]

    need_programs("curl")
    assert statuses() == [0] * 6
    os.kill(running.pid("replica-1"), signal.SIGSTOP)
    try:
        assert statuses() == [0] * 6
    finally:
        os.kill(running.pid("replica-1"), signal.SIGCONT)


async def test_a_rolling_restart_fails_no_request(
    running: BalancedInstallation,
    capsys: pytest.CaptureFixture[str],
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Callable[[Path, ModelSnapshot], str],
) -> None:
    """`recollect balance restart` replaces every replica under load, and reports each."""
    publish_snapshot(running.home / "models", make_snapshot())
    before = {name: running.pid(name) for name in running.rows()}
    async with Load(running.port) as load:
        await load.more(100)
        code = await asyncio.to_thread(restart, Config(home=running.home), as_json=True, timeout_s=60.0)
        await load.more(100)
    running.record_groups()
    assert code == 0
    assert load.failures == []
    report = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in report["restarted"]] == ["replica-0", "replica-1", "replica-2"]
    for entry in report["restarted"]:
        assert entry["old_pid"] == before[entry["name"]]
        assert entry["new_pid"] == running.pid(entry["name"])
    for name in ("nginx-0", "nginx-1"):
        assert running.pid(name) == before[name]


def test_without_any_replica_lists_come_from_the_static_file(
    running: BalancedInstallation, wait_until: Callable[..., None]
) -> None:
    """200 and X-Degraded: static for requests that the file answers; others get 503 with Retry-After."""
    # The supervisor is frozen, so that the replicas stay dead.
    running.signal(signal.SIGSTOP)
    for slot in range(3):
        os.kill(running.pid(f"replica-{slot}"), signal.SIGKILL)
    for path, method, kind, body in (
        ("/recommend/42", "GET", "text/plain; charset=utf-8", b"1,2,3\n"),
        ("/v1/recommendations/42", "GET", "application/json", b'{"items": [], "degraded": "static"}'),
        ("/v1/recommendations/42?n=10", "GET", "application/json", b'{"items": [], "degraded": "static"}'),
        ("/v1/recommendations/..", "GET", "application/json", b'{"items": [], "degraded": "static"}'),
        ("/v1/recommendations/42", "HEAD", "application/json", b""),
        ("/v1/popular", "GET", "application/json", b'{"items": [], "degraded": "static"}'),
    ):
        status, headers, answer = running.get(path, method=method)
        assert (status, answer) == (200, body), path
        assert headers["X-Degraded"] == "static"
        assert headers["Content-Type"] == kind
    # Another length than that of the file.
    for path in (
        "/v1/recommendations/42?n=3",
        "/v1/recommendations/42?n=10&n=10",
        "/v1/popular?n=500",
        "/recommend/42?n=3",
    ):
        status, headers, answer = running.get(path)
        assert (status, headers["Retry-After"], headers["X-Degraded"]) == (503, "1", None), path
        assert json.loads(answer)["type"] == "/problems/unavailable"
    # A body may exclude or include items, and routes other than lists have no static file.
    for path in ("/v1/recommendations", "/v1/events", "/v1/model", "/v1/items/1/similar"):
        status, headers, answer = running.get(path, method="POST", body=b"{}")
        assert status in {502, 503, 504}
        assert headers["Retry-After"] == "1"
        assert headers["Content-Type"] == "application/problem+json"
        assert json.loads(answer)["status"] == status
    (running.home / "models" / "popular.json").unlink()
    status, headers, answer = running.get("/v1/recommendations/42")
    assert (status, headers["Retry-After"]) == (503, "1")
    assert json.loads(answer)["type"] == "/problems/unavailable"
    assert running.get("/healthz")[0] == 200
    assert running.get("/readyz")[0] == 502
    running.signal(signal.SIGCONT)
    wait_until(
        lambda: running.get("/v1/recommendations/42")[1]["X-Degraded"] is None and _serves(running), timeout_s=20
    )


def test_requests_over_a_replicas_bound_are_refused_at_once(
    installation: BalancedInstallation, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """503 with Retry-After, no static list and no 502; lists leave room for events, and health has no bound."""
    bounds = {"RECOLLECT_LIST_CONCURRENCY": "2", "RECOLLECT_FEEDBACK_CONCURRENCY": "2"}
    patience = {f"RECOLLECT_{name}_MS": "60000" for name in ("LIST_TIMEOUT", "LIST_BUDGET", "EVENTS_TIMEOUT")}
    installation.settings = {"RECOLLECT_REPLICAS": "1", "RECOLLECT_BALANCERS": "1", **bounds, **patience}
    installation.start_and_wait()
    gate = tmp_path / "open"
    waiting = {"X-Wait-For": str(gate)}
    held = 0
    with ThreadPoolExecutor() as pool:
        for path, method in (("/v1/recommendations/42", "GET"), ("/v1/events", "POST")):
            answers = [pool.submit(installation.get, path, method=method, headers=waiting) for _ in range(2)]
            held += 2
            wait_until(lambda: len(list(tmp_path.glob("open.*"))) == held, what="the bound")  # noqa: B023
            status, headers, answer = installation.get(path, method=method)
            assert (status, headers["Retry-After"], headers["X-Degraded"]) == (503, "1", None)
            assert json.loads(answer)["type"] == "/problems/unavailable"
            assert not any(answer.done() for answer in answers)
        assert installation.get("/readyz")[0] == installation.get("/healthz")[0] == 200
        gate.touch()
    assert installation.get("/v1/recommendations/42")[0] == installation.get("/v1/events", method="POST")[0] == 200


def test_a_post_whose_replica_dies_is_sent_to_another_with_the_same_key(
    running: BalancedInstallation, tmp_path: Path
) -> None:
    """Without a client's key the balancer makes one, which marks the second attempt as the same request."""
    for headers in ({}, {"Idempotency-Key": "clients-own-key"}):
        trigger = tmp_path / f"died-{len(headers)}"
        status, _, answer = running.get(
            "/v1/events", method="POST", body=b"{}", headers={**headers, "X-Die-Once": str(trigger)}
        )
        assert status == 200
        first, second = trigger.read_text(), json.loads(answer)["key"]
        assert first == second
        assert second == headers.get("Idempotency-Key", second)
        assert 8 <= len(second) <= 64


def test_killing_nginx_master_leaves_no_orphaned_worker(
    running: BalancedInstallation, wait_until: Callable[..., None]
) -> None:
    """Orphaned workers would hold the port, so they are killed before nginx starts again, within a second."""
    before = running.rows()["nginx-0"]
    assert before.pid is not None
    workers = set(group_members(before.pid, before.output)) - {before.pid}
    assert workers
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: running.rows()["nginx-0"].restarts == 1, timeout_s=1.0)
    wait_until(lambda: running.rows()["nginx-0"].state == "ready", timeout_s=5.0)
    assert running.get("/v1/model")[0] == 200
    assert group_members(before.pid, before.output) == []


# --- starting and stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopping_leaves_nothing(running: BalancedInstallation, number: signal.Signals) -> None:
    """No process, port, pid file or temporary file; state and logs stay."""
    running.signal(number)
    status, _, errors = running.wait()
    assert (status, errors) == (0, "")
    assert running.survivors() == []
    assert [path.name for path in running.home.iterdir()] == ["models"]
    with socket.create_server(("127.0.0.1", running.port)):
        pass
    assert {path.name for path in (running.folder / "logs").iterdir()} >= {"nginx-0.access.log", "replica-0.out"}


def test_stopping_during_the_start_leaves_nothing(
    installation: BalancedInstallation, wait_until: Callable[..., None]
) -> None:
    """No process and no file of the start remains."""
    installation.start()
    wait_until(lambda: "replica-0" in installation.rows())
    installation.record_groups()
    installation.signal(signal.SIGINT)
    status, _, errors = installation.wait()
    assert (status, errors) == (0, "")
    assert installation.survivors() == []
    assert [path.name for path in installation.home.iterdir()] == ["models"]


def test_a_second_installation_in_a_home_is_refused(running: BalancedInstallation) -> None:
    """The error is one sentence with the pid of the first, which keeps running."""
    assert running.process is not None
    second = BalancedInstallation(running.folder, free_port())
    second.start()
    status, _, errors = second.wait()
    assert status == 1
    assert errors == f"recollect: Recollect is already running in {running.home} (process {running.process.pid}).\n"
    assert running.get("/v1/model")[0] == 200
    assert len(running.rows()) == 5


def test_a_taken_port_is_refused_in_one_sentence(installation: BalancedInstallation) -> None:
    """No part is started."""
    with socket.create_server(("127.0.0.1", installation.port)):
        installation.start()
        status, _, errors = installation.wait()
    assert status == 1
    assert errors == (
        f"recollect: Another process listens on 127.0.0.1:{installation.port}; stop it or choose another port.\n"
    )
    assert [path.name for path in installation.home.iterdir()] == ["models"]


def test_output_of_an_earlier_run_is_not_reported_as_the_cause(installation: BalancedInstallation) -> None:
    """A replica that dies without output is reported with its exit cause."""
    logs = installation.folder / "logs"
    logs.mkdir()
    for slot in range(3):
        (logs / f"replica-{slot}.out").write_text("serving at http://127.0.0.1:8081\n")
    installation.program = (sys.executable, "-c", "import os; os.abort()")
    installation.start()
    status, _, errors = installation.wait()
    assert status == 1
    assert "did not come up (killed by SIGABRT) and wrote nothing to " in errors


def test_a_replica_that_cannot_start_is_reported_in_one_sentence(installation: BalancedInstallation) -> None:
    """The sentence has its last output; nothing is left behind."""
    installation.program = (sys.executable, "-c", "raise SystemExit('no such model')")
    installation.start()
    status, _, errors = installation.wait()
    assert status == 1
    assert "did not come up (exit status 1); its last output: no such model (all of it is in " in errors
    assert errors.count("\n") == 1
    assert [path.name for path in installation.home.iterdir()] == ["models"]


@pytest.mark.parametrize("frozen", [False, True])
def test_the_next_start_ends_processes_of_a_killed_supervisor(running: BalancedInstallation, frozen: bool) -> None:
    """The kernel sends its children SIGTERM; frozen ones cannot handle it, and the next start kills them."""
    leftovers = dict(running.groups)
    if frozen:
        for leader in leftovers:
            os.killpg(leader, signal.SIGSTOP)
    running.signal(signal.SIGKILL)
    running.wait()
    if not frozen:
        deadline_s = time.monotonic() + 15
        while running.survivors():
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
    running.start_and_wait()
    assert [leader for leader, output in leftovers.items() if group_members(leader, output)] == []
    assert running.get("/v1/model")[0] == 200


def test_a_restart_without_an_installation_is_refused_in_one_sentence(installation: BalancedInstallation) -> None:
    """`recollect balance restart` without an installation."""
    program = (
        "import os, sys\nfrom ops.commands.balance import restart\n"
        "from ops.console.command_runner import exit_code_of\nfrom service.config import from_env\n"
        "sys.exit(exit_code_of(lambda: restart(from_env(os.environ))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "RECOLLECT_HOME": str(installation.home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"recollect: Nothing runs in {installation.home}; start it with `recollect up`.\n"


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can change its user; run as another user, every test covers this"
)
def test_a_normal_user_can_run_it_all() -> None:
    """No part needs privileges."""
    nobody = 65534
    try:
        subprocess.run([sys.executable, "-c", "import ops.commands.balance"], user=nobody, group=nobody, check=True)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("a normal user cannot read this Python or this checkout")
    with tempfile.TemporaryDirectory(prefix="recollect-") as name:
        folder = Path(name)
        made = new_installation(folder)
        made.user = nobody
        for path in (folder, *folder.rglob("*")):
            os.chown(path, nobody, nobody)
        try:
            made.start_and_wait()
            assert made.get("/v1/model")[0] == 200
            assert {Path(f"/proc/{pid}").stat().st_uid for pid in made.survivors()} == {nobody}
            made.signal(signal.SIGTERM)
            assert made.wait()[0] == 0
            assert made.survivors() == []
        finally:
            made.end()


def _serves(installation: BalancedInstallation) -> bool:
    return all(row.state == "ready" for row in installation.rows().values())
