"""`recollect cluster`: make this machine the head of a cluster or a part of one, list the machines, and leave."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from loadbalancer import home
from loadbalancer.errors import NotRunning
from ops.cluster.machine import LEAST_STORE_BYTES, store_bytes_here
from ops.console.table import table
from ops.installation_run import interruptible, print_line
from ops.options.shared_options import JsonOption
from service.config import Config, from_env
from service.errors import RunError, UsageError

# Imported when a part begins: `--help` needs no digest of the code.
if TYPE_CHECKING:
    from ops.cluster.ray_node import NodeOptions

app = typer.Typer(
    help="Machines that train and generate together; Ray connects them.", no_args_is_help=True, rich_markup_mode=None
)

_POLL_EVERY_S: Final = 0.2
_LEAVE_TIMEOUT_S: Final = 60.0
_MEGABYTE: Final = 1_000_000
_LEAST_STORE_MB: Final = LEAST_STORE_BYTES // _MEGABYTE

AddressOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="IP",
        help="The address of this machine at which the others reach it; else it is found out.",
    ),
]
NodeWorkersOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--workers", min=0, max=4096, help="Workers on this machine; by default one for each core."),
]
StoreOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--store-mb",
        min=_LEAST_STORE_MB,
        help="Memory for values that workers share, in MB; by default three tenths of what is free, and at most what "
        "/dev/shm has room for. More goes to disk.",
    ),
]


@app.command("head")
def head_command(
    *,
    address: AddressOption = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where the other machines find it.")] = 7379,
    workers: NodeWorkersOption = None,
    store_mb: StoreOption = None,
) -> int:
    """Make this machine the head of a cluster, and one of its workers, until SIGINT, SIGTERM or `cluster leave`."""
    from ops.cluster.machine import own_address
    from ops.cluster.ray_node import NodeOptions
    from ops.cluster.token_file import make_token

    config = from_env(os.environ)
    own = address or own_address()
    options = NodeOptions(own, None, port, _workers(workers), _bytes(store_mb))

    def on_ready() -> None:
        print_line(f"The head of the cluster is at {own}:{port}, with {options.n_workers} workers.")
        print_line(f"On each other machine, with a copy of {make_token(config)}: recollect cluster join {own}:{port}")

    return _take_part(config, options, make_token(config), f"{own}:{port}", on_ready)


@app.command("join")
def join_command(
    head: Annotated[str, typer.Argument(metavar="ADDRESS", help="HOST:PORT of the head.")],
    *,
    address: AddressOption = None,
    workers: NodeWorkersOption = None,
    store_mb: StoreOption = None,
    wait_s: Annotated[
        float, typer.Option("--wait-s", min=0, help="Seconds to wait for a head that does not answer yet.")
    ] = 0.0,
) -> int:
    """Add this machine's workers to a cluster, until SIGINT, SIGTERM or `cluster leave`."""
    from ops.cluster.machine import own_address, parse_address
    from ops.cluster.members import cluster_nodes
    from ops.cluster.part import remove_killed_part, wait_for_head
    from ops.cluster.ray_node import NodeOptions
    from ops.cluster.token_file import require_token
    from service.executors.ray_connection import refuse_other_versions

    config = from_env(os.environ)
    try:
        with interruptible():
            remove_killed_part(config)
            wait_for_head(head, wait_s)
    except KeyboardInterrupt:
        print_line("Stopped.")
        return 0
    own = address or own_address(parse_address(head))
    options = NodeOptions(own, head, 0, _workers(workers), _bytes(store_mb))

    def on_ready() -> None:
        nodes = [node for node in cluster_nodes(config, head) if node.is_alive]
        refuse_other_versions((f"{node.name} ({node.address})", node.version) for node in nodes)
        n_workers = sum(node.n_workers for node in nodes)
        print_line(f"{own} is a part of the cluster at {head}, with {options.n_workers} of its {n_workers} workers.")

    return _take_part(config, options, require_token(config), head, on_ready)


@app.command("status")
def status_command(
    *,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster", metavar="ADDRESS", help="HOST:PORT of the head; else that of this machine's cluster."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """List the machines of a cluster, from one of them."""
    from ops.cluster.members import cluster_nodes

    config = from_env(os.environ)
    address = cluster or _own_cluster(config)
    nodes = cluster_nodes(config, address)
    if as_json:
        print(json.dumps({"head": address, "nodes": [node.as_json() for node in nodes]}, indent=2))
        return 0
    rows = [
        [
            node.name,
            node.address,
            "lost" if not node.is_alive else "head" if node.is_head else "ready",
            str(node.n_workers),
            f"{node.store_bytes // _MEGABYTE}",
            node.version or "unknown",
        ]
        for node in nodes
    ]
    print(table(["machine", "address", "state", "workers", "store MB", "version"], rows, left=(0, 1, 2, 5)))
    return 0


@app.command("leave")
def leave_command() -> int:
    """Take this machine out of its cluster; tasks that it had are done by the others."""
    from ops.cluster.members import is_part

    config = from_env(os.environ)
    try:
        pid = home.holder_pid(config.cluster_dir)
    except NotRunning:
        raise RunError("This machine is not a part of a cluster.") from None
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + _LEAVE_TIMEOUT_S
    while is_part(config):
        if time.monotonic() > deadline_s:
            raise RunError(f"Process {pid} did not leave the cluster within {_LEAVE_TIMEOUT_S:g} s.")
        time.sleep(_POLL_EVERY_S)
    print_line("This machine has left the cluster.")
    return 0


def _take_part(config: Config, options: "NodeOptions", token: Path, head: str, on_ready: Callable[[], None]) -> int:
    """Run this machine's part of a cluster until a stop signal.

    Raises:
        RunError: Ray does not start, or ends by itself.
    """
    from ops.cluster.part import running_part

    with interruptible():
        try:
            with running_part(config, options, token, head) as (child, output):
                on_ready()
                while not child.exited():
                    time.sleep(_POLL_EVERY_S)
                raise RunError(f"Ray ended by itself on this machine, perhaps because the head is gone; see {output}.")
        except KeyboardInterrupt:
            print_line("Stopped.")
    return 0


def _own_cluster(config: Config) -> str:
    from ops.cluster.members import is_part, part_of_home

    known = part_of_home(config) if is_part(config) else None
    if known is None:
        raise UsageError("This machine is not a part of a cluster; name one with --cluster.")
    return known.head


def _workers(given: int | None) -> int:
    return len(os.sched_getaffinity(0)) if given is None else given


def _bytes(megabytes: int | None) -> int | None:
    return store_bytes_here() if megabytes is None else megabytes * _MEGABYTE
