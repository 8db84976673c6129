"""The part of this machine in a cluster: until it leaves, or while one command runs that needs the others' workers."""

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from loadbalancer import home
from loadbalancer.errors import AlreadyRunning
from loadbalancer.supervision.processes import Child
from ops.cluster.machine import interface_of, own_address, parse_address, store_bytes_here
from ops.cluster.members import HomePart, is_part, part_of_home, part_path, values_path
from ops.cluster.ray_environment import node_environment
from ops.cluster.ray_node import NodeOptions, running_node
from service.config import Config
from service.errors import RunError
from service.executors.ray_connection import COMMAND_LABEL, labels_at

_POLL_EVERY_S: Final = 0.5
_ANSWER_WITHIN_S: Final = 5.0
# Longer than a head needs to count a killed part as lost.
_NOTICED_WITHIN_S: Final = 20.0


@contextmanager
def running_part(config: Config, options: NodeOptions, token: Path, head: str) -> Iterator[tuple[Child, Path]]:
    """Run this machine's part of a cluster; it is ready inside.

    Args:
        config: The settings.
        options: How this machine takes part.
        token: The file of the token.
        head: HOST:PORT of the head, as others name it.

    Yields:
        Ray's process, and the file of what it prints.

    Raises:
        RunError: Ray does not start.
        AlreadyRunning: This home directory is a part of a cluster already.
    """
    environ = node_environment(os.environ, token, interface_of(options.address))
    output = config.logs / "ray.log"
    with home.held(config.cluster_dir):
        # A killed part leaves it.
        part_path(config).unlink(missing_ok=True)
        with running_node(options, environ, output, values_path(config)) as child:
            part_path(config).write_text(json.dumps(asdict(HomePart(head, options.address))))
            yield child, output


def remove_killed_part(config: Config) -> None:
    """Remove what a killed part of this machine has left, which says that the machine is still a part.

    Raises:
        AlreadyRunning: This home directory is a part of a cluster.
    """
    with home.held(config.cluster_dir):
        # The folder is removed on exit.
        pass


@contextmanager
def part_of_command(config: Config, token: Path, head: str, address: str) -> Iterator[str]:
    """Let a command drive a cluster: where this machine is not a part of it, it is one, without workers, inside.

    Args:
        config: The settings.
        token: The file of the token.
        head: HOST:PORT of the head.
        address: The address of this machine in the cluster, if it is a part.

    Yields:
        The address of this machine in the cluster.

    Raises:
        RunError: Ray does not start, or another command of this machine has a part of its own.
    """
    # Without an answer, the connection of the command says what is wrong.
    labels = labels_at(head, address)
    left = part_of_home(config)
    if labels and left == HomePart(head, address) and not is_part(config):
        labels = _labels_without_killed(config, left, labels)
    if labels is None or any(COMMAND_LABEL not in each for each in labels):
        yield address
        return
    if labels:
        raise RunError(
            f"Another command of this machine takes part in the cluster at {head} while it runs. For several at once "
            f"let the machine join first: recollect cluster join {head} --workers 0"
        )
    own = own_address(parse_address(head))
    options = NodeOptions(own, head, 0, 0, store_bytes_here(), of_command=True)
    with running_part(config, options, token, head):
        yield own


def wait_for_head(head: str, wait_s: float) -> None:
    """Wait until the head's name is known and its port answers, for a time; who asks it then says what is wrong."""
    deadline_s = time.monotonic() + wait_s
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError):
            socket.create_connection(parse_address(head), _ANSWER_WITHIN_S).close()
            return
        time.sleep(_POLL_EVERY_S)


def _labels_without_killed(config: Config, left: HomePart, labels: list[dict[str, str]]) -> list[dict[str, str]] | None:
    """Wait until the head counts a killed part of this home directory as lost, for a time.

    Args:
        config: The settings.
        left: What the part has left.
        labels: Those of what takes part at its address, the killed part perhaps with others.

    Returns:
        The labels of the others; None if the head does not answer.
    """
    print(f"Waiting for the head at {left.head} to notice that this machine's part was killed.", file=sys.stderr)
    now: list[dict[str, str]] | None = labels
    most = len(labels)
    deadline_s = time.monotonic() + _NOTICED_WITHIN_S
    while now is not None and len(now) >= most and time.monotonic() < deadline_s:
        most = len(now)
        time.sleep(_POLL_EVERY_S)
        now = labels_at(left.head, left.address)
    # The next command waits no more: what is there then is of another home directory.
    with contextlib.suppress(AlreadyRunning):
        remove_killed_part(config)
    return now
