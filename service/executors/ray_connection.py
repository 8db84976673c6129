"""The connection of a process to a cluster of Ray, and Ray's errors as sentences."""

import importlib.util
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from service.errors import RunError
from service.executors.code_version import own_version, unlike
from service.executors.executor import MOST_DEATHS

VERSION_LABEL: Final = "recollect-version"
"""The label of a machine of a cluster that says which code it runs."""
COMMAND_LABEL: Final = "recollect-command"
"""The label of a machine that is a part of a cluster for one command alone, which runs there."""
_CONNECT_TIMEOUT_S: Final = 5.0


def workers_of(ray: Any) -> int:
    """Return the number of workers of a cluster.

    Raises:
        RunError: It has none, or a machine runs other code than this one.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    refuse_other_versions(
        (f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})", node["Labels"].get(VERSION_LABEL))
        for node in nodes
    )
    n_workers = sum(n_cores for _, n_cores in usable_machines(ray))
    if not n_workers:
        raise RunError("The cluster has no workers; join it with `recollect cluster join`.")
    return n_workers


def usable_machines(ray: Any) -> list[tuple[str, int]]:
    """Return the machines that live and run the code of this process, by Ray's id, with their workers.

    A machine with other code is a part of the cluster for a moment, until its `recollect cluster join` has seen that.
    """
    return [
        (node["NodeID"], int(node["Resources"].get("CPU", 0)))
        for node in ray.nodes()
        if node["Alive"] and node["Labels"].get(VERSION_LABEL) == own_version()
    ]


def refuse_other_versions(versions: Iterable[tuple[str, str | None]]) -> None:
    """Refuse a cluster in which machines run other code than this one.

    Args:
        versions: Machines, and the text of `code_version` of each; None where it is unknown.

    Raises:
        RunError: There is such a machine.
    """
    own = own_version()
    for node, version in versions:
        if version is None:
            raise RunError(f"{node} was not made a part of the cluster by `recollect cluster`, so its code is unknown.")
        if version != own:
            raise RunError(unlike(node, version, own))


def connected(address: str, own_address: str) -> Any:
    """Connect to a head, and return the module `ray`.

    Args:
        address: HOST:PORT of the head.
        own_address: The address of this machine in the cluster; Ray would take any of its processes on this machine.

    Raises:
        RunError: Ray is not installed, the head does not answer or refuses, or this machine is not of the cluster.
    """
    if importlib.util.find_spec("ray") is None:
        raise RunError("A cluster needs the package ray: make cluster, or install recollect[cluster].")
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise RunError(
            f"No cluster answers at {address} ({error}); start its head with `recollect cluster head`."
        ) from None
    import ray

    _keep_standard_output(ray)
    # Ray replaces what the command does on SIGTERM.
    before = signal.getsignal(signal.SIGTERM)
    said = ""
    try:
        with _captured_errors() as text:
            try:
                ray.init(
                    address,
                    _node_ip_address=own_address,
                    log_to_driver=False,
                    configure_logging=False,
                    logging_level=logging.ERROR,
                )
            finally:
                said = text()
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if "InvalidAuthToken" in f"{said}{error}":
            raise RunError(
                f"The cluster at {address} has another token than this machine: copy it from the machine of the head."
            ) from None
        raise RunError(
            f"This machine is not a part of the cluster at {address}; `recollect cluster join {address}` makes it one. "
            f"Ray says: {_first_line(error)}"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    return ray


def disconnect(ray: Any) -> None:
    """End the connection of this process, and leave what it does on SIGTERM as it is, which Ray sets to the default."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.shutdown()
    finally:
        signal.signal(signal.SIGTERM, before)


def labels_at(address: str, machine: str) -> list[dict[str, str]] | None:
    """Ask a head, from any machine, for the labels of what takes part in its cluster at an address, that of a machine.

    Args:
        address: HOST:PORT of the head.
        machine: The address of the machine.

    Returns:
        One dictionary for each part that lives; None if Ray is not installed, or the head does not answer or refuses.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()
        import ray
        from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
        from ray.core.generated.gcs_pb2 import GcsNodeInfo

        with _captured_errors():
            nodes = GcsClient(address=address).get_all_node_info(timeout=_CONNECT_TIMEOUT_S)
    except (ImportError, OSError, ValueError, RuntimeError):
        return None
    except ray.exceptions.RayError:
        return None
    return [
        dict(node.labels)
        for node in nodes.values()
        if node.state == GcsNodeInfo.ALIVE and node.node_manager_address == machine
    ]


def _keep_standard_output(ray: Any) -> None:
    """Stop Ray from printing what happens in the cluster on standard output, which is the command's; it has no option.

    The events of workers say the same.
    """
    ray._private.worker.print_to_stdstream = lambda *_, **__: None  # noqa: SLF001


@contextmanager
def _captured_errors() -> Iterator[Callable[[], str]]:
    """Keep what Ray's libraries write to standard error, by its descriptor: the command says what failed.

    Yields:
        A function that returns what they have written.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:

        def text() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            os.dup2(file.fileno(), 2)
            yield text
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def fetched(ref: Any) -> Any:
    """Return a value of Ray.

    Raises:
        RunError: It is lost, or its task ended too many workers.
    """
    import ray

    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        raise run_error(error) from None


def run_error(error: Exception) -> RunError:
    """Return the error to raise in place of one of Ray."""
    import ray

    if isinstance(error, (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError)):
        return RunError(
            f"A task ended {MOST_DEATHS} workers. A process was killed, most likely for want of memory, or its machine "
            "was lost."
        )
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return RunError("A task was ended by Ray, because its machine has not enough memory for it.")
    if isinstance(error, ray.exceptions.RayTaskError):
        return RunError(f"A worker failed: {str(error).strip().splitlines()[-1]}")
    return RunError(_lost(ray, error))


def _lost(ray: Any, error: Exception) -> str:
    """Return the sentence for an error of Ray itself: most often its head is gone."""
    head = ray.get_runtime_context().gcs_address
    host, _, port = head.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()
    except OSError:
        return f"The head of the cluster at {head} does not answer any more."
    return f"The cluster lost a value: {_first_line(error)}"


def on_this_machine(ray: Any) -> Any:
    """Return the strategy that keeps something on this machine."""
    return on_machine(ray.get_runtime_context().get_node_id())


def on_machine(node: str) -> Any:
    """Return the strategy that keeps something on a machine, by Ray's id of it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
