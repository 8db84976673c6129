"""The drill of a cluster; what it does with two machines is in tests/integration/test_cluster.py in short."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from ops import cli
from ops.cluster.__main__ import run, works
from ops.cluster.loss_drill import LOSSES, Loss, Work, at_work, drill
from ops.nodes.network import network
from ops.nodes.node import Node
from service.errors import UsageError
from tests.support.machines.real_nodes import require_nodes


class Machines:
    """Two machines on which every command takes a second; those with a loss answer as told.

    Attributes:
        log: What was done.
    """

    address = "10.0.0.1:7379"

    def __init__(self, answers: dict[Loss | None, Any], n_killed: int = 1) -> None:
        self.log: list[str] = []
        self._answers = answers
        self._n_killed = n_killed
        self._loss: Loss | None = None

    def run(self, work: Work, options: tuple[str, ...]) -> tuple[float, Any]:
        self.log.append(" ".join((*work.argv, *options)))
        loss, self._loss = self._loss, None
        return 1.0, self._answers[loss]

    def lose(self, loss: Loss) -> int:
        self._loss = loss
        self.log.append(f"lose {loss}")
        return self._n_killed

    def join(self) -> None:
        self.log.append("join")


WORK = Work("train", ("train",), ("--workers", "2"), lambda printed: printed)


def test_each_loss_is_compared_with_the_run_of_one_machine() -> None:
    """A machine that was lost joins again, so that every run begins with two."""
    machines: Any = Machines({None: "same", "worker": "same", "machine": "other"})
    figures = list(drill(machines, [WORK], LOSSES, lambda _: None))
    assert [(each.loss, each.is_equal) for each in figures] == [(None, True), ("worker", True), ("machine", False)]
    on_cluster = "train --cluster 10.0.0.1:7379"
    assert machines.log == [
        *("train --workers 2", on_cluster, "lose worker", on_cluster, "lose machine", on_cluster),
        "join",
    ]


def test_only_processes_of_the_node_with_a_task_are_at_work(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """Not those of the other machine, nor workers that wait, nor any of a machine that is off."""
    require_nodes()
    with network(2, folder=tmp_path) as (first, second):

        def start(node: Node, name: str) -> int:
            return node.popen(["bash", "-c", f"exec -a {name} sleep 600"]).pid

        busy = {start(second, "ray::do_task"), start(second, "ray::MemberProcess.run")}
        start(second, "ray::IDLE")
        elsewhere = start(first, "ray::do_task")
        wait_until(lambda: set(at_work(second)) == busy and at_work(first) == [elsewhere])
        second.kill()
        assert at_work(second) == []


def test_the_works_are_commands_with_known_options() -> None:
    """A network is compared with as many members on one machine, because it depends on their number."""
    found = works("demo", ["ials", "two_tower"], 1)
    assert [(work.name, work.alone) for work in found] == [
        ("train ials", ()),
        ("generate", ()),
        ("train two_tower", ("--workers", "2")),
    ]
    commands: Any = typer.main.get_command(cli.application())
    for work in found:
        known = {option for each in commands.commands[work.argv[0]].params for option in each.opts}
        assert {word for word in (*work.argv, *work.alone) if word.startswith("--")} <= known


def test_an_algorithm_of_one_process_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^ease is trained in one process; these are not: ials, svd, "):
        run("demo", ["ials", "ease"], 1)
