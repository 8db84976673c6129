"""Two nginx on one port: clients with one retry get no error when either is killed or frozen."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from loadbalancer.supervision.processes import group_members
from tests.integration.balanced import BalancedInstallation, new_installation
from tests.integration.load import Load, until

BOTH = ("nginx-0", "nginx-1")


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[BalancedInstallation]:
    """An installation that is not started."""
    made = new_installation(tmp_path)
    yield made
    made.end()


@pytest.fixture
def running(installation: BalancedInstallation) -> BalancedInstallation:
    """An installation of three replicas and two nginx, all ready."""
    installation.start_and_wait()
    return installation


def master_and_worker(installation: BalancedInstallation, name: str) -> tuple[int, int]:
    row = installation.rows()[name]
    assert row.pid is not None
    (worker,) = set(group_members(row.pid, row.output)) - {row.pid}
    return row.pid, worker


def ready(installation: BalancedInstallation, restarts: int) -> bool:
    rows = [installation.rows()[name] for name in BOTH]
    return all(row.state == "ready" for row in rows) and sum(row.restarts for row in rows) == restarts


def tried_twice(installation: BalancedInstallation) -> Load:
    """Return the load of clients with one retry and a deadline of 2 s, like the reference client."""
    return Load(installation.port, clients=16, retries=1, deadline_s=2.0)


async def test_both_serve(running: BalancedInstallation) -> None:
    """The kernel gives each a share of the connections, as their access logs show."""
    async with Load(running.port, clients=32) as load:
        await load.more(100)
        logs = [running.folder / "logs" / f"{name}.access.log" for name in BOTH]
        await until(lambda: all(log.stat().st_size for log in logs))
    assert load.failures == []


async def test_killing_a_whole_nginx_fails_no_request_that_is_tried_twice(running: BalancedInstallation) -> None:
    """Master and worker at once, each nginx in turn. The other one serves, and the killed one is restarted."""
    async with tried_twice(running) as load:
        for turn in range(6):
            await load.more(100)
            os.killpg(running.pid(BOTH[turn % 2]), signal.SIGKILL)
            await until(partial(ready, running, turn + 1))
            running.record_groups()
    assert load.failures == []


async def test_killing_a_worker_fails_no_request_that_is_tried_twice(running: BalancedInstallation) -> None:
    """Its master starts a new worker and keeps the listener open, so that new connections wait instead of failing."""
    async with tried_twice(running) as load:
        for turn in range(6):
            await load.more(100)
            master, worker = master_and_worker(running, BOTH[turn % 2])
            os.kill(worker, signal.SIGKILL)
            await until(partial(_another_worker, running, master, worker))
    assert load.failures == []
    assert ready(running, restarts=0)


def test_a_killed_worker_closes_its_sockets_at_once(running: BalancedInstallation) -> None:
    """No asynchronous I/O is set up, because the kernel would clean it up before it closes the listener."""
    for name in BOTH:
        _, worker = master_and_worker(running, name)
        assert "[aio]" not in Path(f"/proc/{worker}/maps").read_text()


def _another_worker(installation: BalancedInstallation, master: int, worker: int) -> bool:
    (output,) = (row.output for row in installation.rows().values() if row.pid == master)
    members = group_members(master, output)
    return worker not in members and len(members) == 2


@pytest.mark.parametrize("frozen", ["worker", "all of it"])
async def test_a_frozen_nginx_is_replaced_before_clients_give_up(running: BalancedInstallation, frozen: str) -> None:
    """The kernel keeps giving it connections, so it is killed; clients that this disconnects retry within the 2 s."""
    master, worker = master_and_worker(running, "nginx-1")
    async with tried_twice(running) as load:
        await load.more(100)
        began_s = time.monotonic()
        if frozen == "worker":
            os.kill(worker, signal.SIGSTOP)
        else:
            os.killpg(master, signal.SIGSTOP)
        await until(lambda: running.rows()["nginx-1"].restarts == 1)
        took_s = time.monotonic() - began_s
        await until(lambda: ready(running, 1))
        running.record_groups()
        await load.more(100)
    # The time is the promise: the watchdog kills an unresponsive nginx before clients give up, but no slow one.
    assert 1.0 < took_s < 3.0
    assert load.failures == []
    assert max(load.latencies_s) > 0.5, "no request reached the frozen nginx"
    assert running.rows()["nginx-0"].restarts == 0


async def test_a_frozen_master_fails_no_request_and_can_be_stopped(running: BalancedInstallation) -> None:
    """Its worker keeps serving; a stop thaws the master first."""
    master, _ = master_and_worker(running, "nginx-1")
    async with Load(running.port) as load:
        await load.more(100)
        os.kill(master, signal.SIGSTOP)
        # These take 3 s at the clients' pace, twice as long as it takes to kill one that does not answer.
        await load.more(1200)
    assert load.failures == []
    assert ready(running, restarts=0)
    running.signal(signal.SIGTERM)
    status, output, errors = running.wait()
    assert (status, errors) == (0, "")
    assert "killed" not in output
    assert running.survivors() == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
async def test_reloading_and_reopening_logs_fails_no_request_that_is_tried_twice(
    running: BalancedInstallation, number: signal.Signals
) -> None:
    """Both at once and repeatedly; no nginx is restarted."""
    logs = [running.folder / "logs" / f"{name}.access.log" for name in BOTH]
    async with tried_twice(running) as load:
        for _ in range(4):
            await load.more(150)
            for log in logs:
                log.replace(log.with_name(f"{log.name}.1"))
            workers = [master_and_worker(running, name) for name in BOTH]
            for master, _ in workers:
                os.kill(master, number)
            await until(lambda: all(log.exists() for log in logs))
            if number is signal.SIGHUP:
                # The old worker goes when its last connection does.
                for master, worker in workers:
                    await until(partial(_another_worker, running, master, worker))
    assert load.failures == []
    assert ready(running, restarts=0)


def test_no_log_holds_a_user_id(running: BalancedInstallation, wait_until: Callable[..., None]) -> None:
    """For every outcome: answered, timed out at a frozen replica, answered without replicas, not found."""
    paths = [
        f"{start}canary-7{end}"
        for start in ("/recommend/", "/v1/recommendations/", "/v1/users/", "/none/")
        for end in ("", "?user=canary-7")
    ]
    for path in paths:
        running.get(path)
    os.kill(running.pid("replica-0"), signal.SIGSTOP)
    for path in 5 * paths:
        running.get(path)
    running.signal(signal.SIGSTOP)
    for slot in range(3):
        os.kill(running.pid(f"replica-{slot}"), signal.SIGKILL)
    for path in paths:
        running.get(path)
    (running.home / "models" / "popular.txt").unlink()
    running.get(paths[0])
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(b"GET /recommend/canary-7 HTTP/1.1\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")
    running.signal(signal.SIGCONT)
    running.signal(signal.SIGTERM)
    running.wait()
    texts = {path.name: path.read_text() for path in (running.folder / "logs").iterdir()}
    assert [name for name, text in texts.items() if "canary" in text] == []
    lines = [json.loads(line) for name in BOTH for line in texts[f"{name}.access.log"].splitlines()]
    assert {(line["route"], line["s"]) for line in lines} == {
        ("/recommend/", 200),
        ("/recommend/", 503),
        ("/recommend/", 400),
        ("/v1/recommendations/", 200),
        ("/v1/recommendations/", 503),
        ("/v1/users/", 200),
        ("/v1/users/", 502),
        ("", 404),
    }
    # What is known of a failed attempt is here.
    assert any("504, 200" in line["us"] for line in lines)


def test_a_foreign_listener_on_the_shared_port_is_named(
    installation: BalancedInstallation, wait_until: Callable[..., None]
) -> None:
    """A process of the same user that shares the port cannot be prevented, so a warning names it."""
    installation.start()
    wait_until(lambda: "replica-0" in installation.rows())
    with socket.create_server(("127.0.0.1", installation.port), reuse_port=True):
        installation.wait_for(f"process {os.getpid()} (")
        installation.wait_for("balancing at")


def test_an_installation_may_have_one_nginx(installation: BalancedInstallation) -> None:
    """It does not share its port, and is watched too."""
    installation.settings["RECOLLECT_BALANCERS"] = "1"
    installation.start_and_wait()
    assert [name for name in installation.rows() if name.startswith("nginx")] == ["nginx-0"]
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", installation.port), reuse_port=True)
    os.killpg(installation.pid("nginx-0"), signal.SIGSTOP)
    installation.wait_for("nginx-0 does not answer and is killed")
    installation.wait_for("nginx-0 is ready again")
    assert installation.get("/v1/model")[0] == 200
